"""The ``speech`` task. Light to import: torch and torchaudio are loaded inside the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench import Dataset, Progress, Request, Splits, Task
from ocd_bench_speech.datasets import DATASETS
from ocd_bench_speech.settings import SpeechSettings

if TYPE_CHECKING:
    import torch


OVERFIT = {
    "ocd.overfit_optimizer": "adam", "ocd.overfit_lr": 5e-3, "ocd.overfit_steps": 10, "ocd.passes": 1, "ocd.task_batch": 4,
    "ocd_paper.overfit_lr": 5e-3, "ocd_paper.overfit_steps": 10, "ocd_paper.passes": 1,
}  # fmt: skip
"""Each mixture is overfitted once, before training, because that costs as much as many steps of the hypernetwork. A forward
pass of the base is expensive too, so only a few mixtures of a batch get one."""

THROUGH = {
    "ocd.form": "learned", "ocd.lr": 2e-3, "ocd.depth": 2, "ocd.batch_size": 32, "ocd.task_batch": 16, "ocd.noise_draws": 2,
    "ocd.task_weight": 30.0,
}  # fmt: skip
"""A few steps, with most of the time spent on the task's own loss. The useful change depends on the speakers of a mixture, and
imitation of overfitted ΔW teaches little about that."""


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
        "quick": {**OVERFIT, **THROUGH, "run.batch_size": 20, "ocd.steps": 40, "ocd.basis": 16},
        "default": {**OVERFIT, **THROUGH, "run.batch_size": 20, "ocd.steps": 800, "ocd.evaluations": 8},
        "paper": {**OVERFIT, "run.batch_size": 8},
    }

    def datasets(self) -> Sequence[Dataset]:
        return DATASETS

    def load_data(self, request: Request) -> Splits:
        """Splits of ``voices``, ``librimix``, or any folder of utterances by speaker. They are the same for every seed.

        Raises:
            DataMissing: if the folder, or any sound file in it, is not there.
            UsageError: for a damaged file, or fewer speakers than a mixture needs.
        """
        from ocd_bench_speech.data import load

        return load(request)

    def base_model(self, splits: Splits, request: Request) -> torch.nn.Module:
        """The separator of the settings, with its packaged weights (``trained``: it must not be trained further) or those of
        ``speech.checkpoint``. They are read here, so that the fingerprint of the base's initial weights depends on the content
        of the file, not only on its name."""
        from ocd_bench.checkpoint import load_checkpoint
        from ocd_bench_speech.models import build
        from ocd_bench_speech.weights import begin, packaged

        model = build(request.settings)
        path = packaged(request)
        if path is None:
            return begin(model, request)
        model.trained = True
        return load_checkpoint(model, path, "install the package again")

    def train_base(self, model: torch.nn.Module, splits: Splits, request: Request, progress: Progress) -> torch.nn.Module:
        """Adam on new mixtures of the training speech at each step; see :mod:`ocd_bench_speech.training`. Packaged weights are
        not trained further. A model of another plugin is trained, from ``speech.checkpoint`` if that names a file."""
        from ocd_bench_speech.training import make_mixer, train
        from ocd_bench_speech.weights import begin

        if getattr(model, "trained", False):
            return model
        begin(model, request)
        generator = request.generator("base mixtures")
        mixer = make_mixer(splits.extras, splits.train, request.settings, generator)
        return train(model, mixer, generator, splits.val, request.settings, progress)

    def longer(self, splits: Splits, request: Request, samples: float) -> Request:
        """More steps, each of ``speech.base_batch`` mixtures."""
        from dataclasses import replace

        steps = request.settings.base_steps + round(samples / request.settings.base_batch)
        return replace(request, settings=replace(request.settings, base_steps=steps))

    def select_layer(self, model: torch.nn.Module, request: Request) -> str | None:
        """The last projection, as in the paper; None (the entropy criterion decides) for a model of another plugin."""
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

    def positions(
        self, inputs: torch.Tensor, output: torch.Tensor
    ) -> tuple[torch.Tensor, int, Callable[[torch.Tensor], torch.Tensor]]:
        """Frames of the mixture and of the estimates, with the frames before and after; see
        :func:`ocd_bench_speech.features.frames`."""
        from ocd_bench_speech.features import FRAME, frames, unframed

        known = frames(inputs, output)
        speakers, length = output.shape[1:]
        return known, speakers * FRAME, lambda change: unframed(change, speakers, length)

    def output_picture(self, output: torch.Tensor) -> torch.Tensor:
        """The estimates' spectrograms (1024-bin FFT) below each other in one grey picture, ``(N, 1, C * 513, frames)``."""
        from ocd_bench_speech.features import spectral_picture

        return spectral_picture(output)

    def encode_input(self, splits: Splits, request: Request) -> torch.nn.Module:
        """A small convolutional encoder of the mixture's log-mel spectrogram, ``(N, T) -> (N, 128)``."""
        from ocd_bench_speech.features import MixtureEncoder

        return MixtureEncoder()

    def test_time_loss(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Entropy of the speakers' shares of each time-frequency bin, plus the unexplained share of the mixture, ``(N,)``.

        Tent minimises the entropy of the class posterior. The analogue here is the ratio mask: the estimates' shares of the
        energy of each bin of the spectrogram, a distribution over speakers. Speech is sparse, so correct masks are nearly
        binary. Bins are weighted by the mixture's energy, and the entropy is in units of log C. The entropy alone would also be
        small for silent estimates. So the share of the mixture's energy that the estimates, at their best gains, do not explain
        is added. Both terms are between 0 and 1, with equal weights. As with Tent, a degenerate solution remains: all energy
        in one estimate also has a low entropy.
        """
        from ocd_bench_speech.features import assignment_entropy

        return assignment_entropy(output, inputs)

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same sources mixed again, each with a random sign and up to 2.5 dB louder or softer."""
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
