"""The settings of the task: section ``speech``. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ocd_bench import setting
from ocd_bench.reading import check_encoding
from ocd_bench.reading.sheet import DELIMITERS
from ocd_bench.settings import Checked


@dataclass(frozen=True)
class SpeechSettings(Checked):
    """Section ``speech``: the mixtures, the base model and its training. Of section ``base`` only ``cache`` counts."""

    speakers: int = setting(2, least=2, most=5, unit="speakers", help="Speakers of a mixture.")
    seconds: float = setting(2.0, least=0.25, most=60, unit="seconds", help="Length of every mixture.")
    train_mixtures: int = setting(1000, least=1, most=10**7, unit="mixtures", help="Training mixtures.")
    val_mixtures: int = setting(100, least=1, most=10**6, unit="mixtures", help="Validation mixtures.")
    test_mixtures: int = setting(300, least=1, most=10**6, unit="mixtures", help="Test mixtures; the same for every seed.")
    level_db: float = setting(2.5, least=0, most=30, unit="dB", help="Each speaker is up to this much louder or softer.")
    minutes: float = setting(120.0, above=0, unit="minutes", help="At most this much speech per split is held in memory.")
    speeds: tuple[float, ...] = setting(
        (0.9, 1.0, 1.1), least=0.5, most=2, help="Speech of training speakers is also used at these speeds."
    )
    more_train: tuple[str, ...] = setting(
        (),
        help="Further datasets, folders of utterances whose speech is for training only. Speakers of the validation and test "
        "splits are left out of them, by name. speech.minutes bounds each of them.",
    )
    librimix_train: str = setting("train-100", choices=("train-100", "train-360"), help="Training subset of LibriMix.")
    librimix_mode: str = setting(
        "min",
        choices=("min", "max"),
        help="Mode of LibriMix: a mixture is as long as its shortest (min) or longest (max) source.",
    )
    model: str = setting(
        "gated_lstm",
        choices=("gated_lstm", "conv_tasnet"),
        help="The base model: the Gated-LSTM of Nachmani, Adi and Wolf (2020), or torchaudio's Conv-TasNet.",
    )
    channels: int = setting(64, least=1, most=4096, unit="channels", help="Channels of the model (N in the paper).")
    hidden: int = setting(64, least=1, most=4096, unit="units", help="Hidden units of the model (H in the paper).")
    blocks: int = setting(2, least=1, most=64, unit="blocks", help="Blocks of the model (R in the paper).")
    kernel: int = setting(
        32, least=2, most=512, multiple=2, unit="samples", help="Kernel of the encoder (L in the paper). Its hop is half of it."
    )
    checkpoint: str = setting(
        "auto",
        help="A state dict to begin from, of any number of speakers; looked for as given, then in the data directories. "
        "With base_steps=0 it is the base as it is. auto: the packaged weights for the dataset, the number of "
        "speakers and the sizes of the model, where there are some, without further training. none: begin from random "
        "weights.",
    )
    checkpoint_key: str = setting(
        "",
        help="Which weights of a checkpoint file that holds several, for example model_ema; the error message lists them. "
        "Empty: the only ones.",
    )
    base_steps: int = setting(12_000, least=0, most=10**9, unit="steps", help="Training steps of the base (Adam).")
    base_batch: int = setting(4, least=1, most=10**5, unit="mixtures", help="New mixtures per training step of the base.")
    base_lr: float = setting(1e-3, above=0, help="Learning rate of the base.")
    base_clip: float = setting(5.0, above=0, help="Largest norm of the gradient in training the base.")
    base_checks: int = setting(
        20, least=1, most=10**6, help="How often the validation loss is taken in training the base. The best weights are kept."
    )
    delimiter: str = setting(
        "auto",
        choices=tuple(DELIMITERS),
        help="What separates the cells of a manifest. auto: the ending and the first lines tell.",
    )
    encoding: str = setting(
        "auto", help="Encoding of a manifest, such as latin-1 or cp1252. auto: what a byte order mark says, else UTF-8."
    )
    section: ClassVar[str] = "speech"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {
            "seconds": 0.5, "train_mixtures": 80, "val_mixtures": 20, "test_mixtures": 40, "speeds": (1.0,),
            "channels": 48, "hidden": 24, "blocks": 1, "base_steps": 160, "base_batch": 4, "base_lr": 6e-3, "base_checks": 5,
        },
        "paper": {
            "speakers": 5, "seconds": 4.0, "train_mixtures": 10_000, "val_mixtures": 500, "test_mixtures": 3000,
            "channels": 128, "hidden": 128, "blocks": 6, "kernel": 8, "base_steps": 400_000, "base_batch": 4, "base_lr": 5e-4,
            "base_checks": 100, "minutes": 600.0,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding("speech.encoding", self.encoding)
