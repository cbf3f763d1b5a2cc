"""The ``speech`` task. Light to import: torch and torchaudio are loaded inside the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench import Dataset, Request, Splits, Task, UsageError
from ocd_bench_speech.datasets import DATASETS

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SpeechSettings:
    """Mixtures, the base model and its training.

    ``speakers``: 2 to 5. ``seconds``: length of every mixture. ``level_db``: each speaker is up to this much louder or softer.
    ``minutes``: at most this much speech per split is held in memory. ``speeds``: training speakers are also heard at these
    speeds. ``model``: ``gated_lstm`` or ``conv_tasnet``, with ``channels`` (N), ``hidden`` (H), ``blocks`` (R) and ``kernel``
    (L). ``base_*``: training of the base in steps of ``base_batch`` new mixtures; of section ``base`` only ``cache`` counts.
    ``checkpoint``: a state dict to begin from, of any number of speakers, looked for as given, then in the data directories;
    with ``base_steps=0`` it is the base as it is. ``auto``: the packaged weights for the dataset, the number of speakers and
    the model's sizes, where there are some, without further training; ``none``: begin from nothing.
    """

    speakers: int = 2
    seconds: float = 2.0
    train_mixtures: int = 1000
    val_mixtures: int = 100
    test_mixtures: int = 300
    level_db: float = 2.5
    minutes: float = 120.0
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    librimix_train: str = "train-100"
    librimix_mode: str = "min"
    model: str = "gated_lstm"
    channels: int = 64
    hidden: int = 64
    blocks: int = 2
    kernel: int = 32
    checkpoint: str = "auto"
    base_steps: int = 12_000
    base_batch: int = 4
    base_lr: float = 1e-3
    base_clip: float = 5.0
    base_checks: int = 20

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {
            "seconds": 1.0, "train_mixtures": 120, "val_mixtures": 30, "test_mixtures": 40, "speeds": (1.0,),
            "channels": 48, "hidden": 24, "blocks": 1, "base_steps": 200, "base_batch": 4, "base_lr": 6e-3, "base_checks": 5,
        },
        "paper": {
            "speakers": 5, "seconds": 4.0, "train_mixtures": 10_000, "val_mixtures": 500, "test_mixtures": 3000,
            "channels": 128, "hidden": 128, "blocks": 6, "kernel": 8, "base_steps": 400_000, "base_batch": 4, "base_lr": 5e-4,
            "base_checks": 100, "minutes": 600.0,
        },
    }  # fmt: skip


OVERFIT = {
    "ocd.overfit_optimizer": "adam", "ocd.overfit_lr": 5e-3, "ocd.overfit_steps": 10, "ocd.passes": 1, "ocd.task_batch": 4,
    "ocd_paper.overfit_lr": 5e-3, "ocd_paper.overfit_steps": 10, "ocd_paper.passes": 1,
}  # fmt: skip
"""Each mixture once, beforehand: overfitting one costs as much as many steps of the hypernetwork. A run of the base is dear
too: few mixtures of a batch get one."""

THROUGH = {
    "ocd.form": "learned", "ocd.lr": 2e-3, "ocd.depth": 2, "ocd.batch_size": 32, "ocd.task_batch": 16, "ocd.noise_draws": 2,
    "ocd.task_weight": 30.0,
}  # fmt: skip
"""Few steps, most of their time in the task's own loss: what serves a mixture depends on who speaks in it, and imitating
overfitted ΔW teaches little of that."""


class SpeechTask(Task):
    """Inputs ``(N, T)`` mixtures, targets ``(N, C, T)`` sources; a mixture is the sum of its sources, free of noise.

    Mixtures have root mean square 1. All losses and scores are under the best assignment of estimates to speakers.
    """

    name = "speech"
    primary_metric = "si_sdri"
    requires = ("torchaudio", "soundfile")
    Settings = SpeechSettings
    description = "separation of 2 to 5 speakers from one microphone"
    corruptions = ("gaussian_noise", "babble", "reverb", "clipping", "lowpass")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {**OVERFIT, **THROUGH, "run.batch_size": 20, "ocd.steps": 100, "ocd.basis": 16},
        "default": {**OVERFIT, **THROUGH, "run.batch_size": 20, "ocd.steps": 800, "ocd.evaluations": 8},
        "paper": {**OVERFIT, "run.batch_size": 8},
    }

    def datasets(self) -> Sequence[Dataset]:
        return DATASETS

    def load_data(self, request: Request) -> Splits:
        """Splits of ``voices``, ``librimix``, or any folder of utterances by speaker. They are the same for every seed.

        Raises:
            DataMissing: if the folder, or any sound file in it, is not there.
            UsageError: for settings out of range, a damaged file, or fewer speakers than a mixture needs.
        """
        from ocd_bench_speech.data import load

        check(request.settings)
        return load(request)

    def base_model(self, splits: Splits, request: Request) -> torch.nn.Module:
        """The separator of the settings, with its packaged weights (``trained``: no one should train it further) or those of
        ``speech.checkpoint``. They are read here already, so that whoever identifies a base by its initial weights sees the
        file's content, not only its name."""
        from ocd_bench.checkpoint import load_checkpoint
        from ocd_bench_speech.models import build
        from ocd_bench_speech.weights import begin, packaged

        model = build(request.settings)
        path = packaged(request)
        if path is None:
            return begin(model, request)
        model.trained = True
        return load_checkpoint(model, path, "install the package again")

    def train_base(
        self, model: torch.nn.Module, splits: Splits, request: Request, progress: Callable[[int, int], None]
    ) -> torch.nn.Module:
        """Adam on ever new mixtures of the training speech; see :mod:`ocd_bench_speech.training`. Packaged weights stay as they
        are; a model that another plugin swapped in is trained, from ``speech.checkpoint`` if that names a file."""
        from ocd_bench_speech.training import make_mixer, train
        from ocd_bench_speech.weights import begin

        if getattr(model, "trained", False):
            return model
        begin(model, request)
        mixer = make_mixer(splits.extras, splits.train, request.settings, request.generator("base mixtures"))
        return train(model, mixer, splits.val, request.settings, progress)

    def select_layer(self, model: torch.nn.Module, request: Request) -> str | None:
        """The last projection, as in the paper; None (entropy criterion) for a model that is not ours."""
        from ocd_bench_speech.models import last_projection

        return last_projection(model)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """-SI-SDR in dB under the best assignment, mean over speakers, ``(N,)``."""
        from ocd_bench_speech.separation import pit_si_sdr

        return -pit_si_sdr(output, target[:, : output.shape[1]])

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """SI-SDR, and its improvement over the mixture as estimate of every speaker, in dB.

        The mixture is the one that the model was given: under a corruption the corrupted one, which :meth:`corrupt_targets`
        puts behind the sources.
        """
        from ocd_bench_speech.separation import pit_si_sdr, si_sdr_of_mixture

        sources = target[:, : output.shape[1]]
        mixture = target[:, -1] if target.shape[1] > output.shape[1] else None
        value = pit_si_sdr(output, sources)
        return {"si_sdri": value - si_sdr_of_mixture(sources, mixture), "si_sdr": value}

    def ensemble(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean waveform of K draws ``(K, N, C, T)``, each draw's speakers first put into the order of the first draw's."""
        from ocd_bench_speech.separation import average_draws

        return average_draws(outputs)

    def encode_output(self, output: torch.Tensor) -> torch.Tensor:
        """Spectrogram of the estimates (1024-bin FFT, as in the paper), mean and deviation over time, ``(N, C * 1026)``."""
        from ocd_bench_speech.features import spectral_summary

        return spectral_summary(output)

    def output_picture(self, output: torch.Tensor) -> torch.Tensor:
        """The estimates' spectrograms (1024-bin FFT) below each other in one grey picture, ``(N, 1, C * 513, frames)``."""
        from ocd_bench_speech.features import spectral_picture

        return spectral_picture(output)

    def encode_input(self, splits: Splits, request: Request) -> torch.nn.Module:
        """A small convolutional encoder of the mixture's log-mel spectrogram, ``(N, T) -> (N, 128)``."""
        from ocd_bench_speech.features import MixtureEncoder

        return MixtureEncoder()

    def test_time_loss(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Entropy of who owns each time-frequency bin, plus the share of the mixture the estimates leave out, ``(N,)``.

        Tent minimises the entropy of the class posterior. Here the analogue of a posterior is the ratio mask: for each bin of
        the spectrogram, the estimates' shares of its energy, a distribution over speakers; speech is sparse, so that right
        masks are nearly binary. Bins count by the mixture's energy, and entropy is in units of log C. Alone it would be
        content with silence, so the share of the mixture's energy that the estimates, at their best gains, do not explain is
        added (both terms lie between 0 and 1, equally weighted). What remains is Tent's own weakness: giving everything to
        one speaker is also certain.
        """
        from ocd_bench_speech.features import assignment_entropy

        return assignment_entropy(output, inputs)

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same voices mixed again: each source at either polarity and up to 2.5 dB louder or softer."""
        from ocd_bench_speech.training import relevelled

        sources = relevelled(targets, SpeechSettings.level_db, generator)
        return sources.sum(1), sources

    def corrupt(self, inputs: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
        from ocd_bench_speech.corruption import KINDS

        return KINDS[kind](inputs, severity - 1, generator)

    def corrupt_targets(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The sources and the corrupted mixture, ``(N, C + 1, T)``: improvements are over the noisy mixture, as in the
        literature."""
        import torch

        return torch.cat([targets, inputs[:, None]], 1)

    def figures(self, splits: Splits, outputs: Mapping[str, torch.Tensor], request: Request, folder: Path) -> Sequence[Path]:
        """WAV files of three test mixtures: the mixture, the truth, and every method's estimates in the truth's order."""
        from ocd_bench_speech.figures import write_sounds

        return write_sounds(splits.test, outputs, folder)


def check(settings: SpeechSettings) -> None:
    """Refuse settings out of range.

    Raises:
        UsageError: naming the setting and its range.
    """
    ranges = (
        ("speakers", 2, 5), ("seconds", 0.25, 60), ("train_mixtures", 1, 10**7), ("val_mixtures", 1, 10**6),
        ("test_mixtures", 1, 10**6), ("level_db", 0, 30), ("channels", 1, 4096), ("hidden", 1, 4096), ("blocks", 1, 64),
        ("kernel", 2, 512), ("base_steps", 0, 10**9), ("base_batch", 1, 10**5), ("base_checks", 1, 10**6),
    )  # fmt: skip
    for name, low, high in ranges:
        if not low <= getattr(settings, name) <= high:
            raise UsageError(f"setting speech.{name}={getattr(settings, name)}: expected {low} to {high}")
    if settings.kernel % 2:
        raise UsageError(f"setting speech.kernel={settings.kernel}: expected an even number (its hop is half of it)")
    if not settings.speeds or not all(0.5 <= speed <= 2 for speed in settings.speeds):
        raise UsageError(f"setting speech.speeds={settings.speeds}: expected speeds of 0.5 to 2, for example 0.9,1.0,1.1")
