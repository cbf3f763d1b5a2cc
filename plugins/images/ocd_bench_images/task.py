"""The task object. It calls the other modules of this package, and imports them when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocd_bench import Dataset, Metric, Request, Samples, Splits, Task
from ocd_bench_images.corruptions import KINDS, RENAMED, SETS
from ocd_bench_images.datasets import DATASETS
from ocd_bench_images.settings import ImagesSettings, settings_of

if TYPE_CHECKING:
    import torch


class Images(Task):
    """Image classification: cross entropy, accuracy."""

    name = "images"
    primary_metric = "accuracy"
    description = "image classification (digits, MNIST, CIFAR-10, Tiny ImageNet, any folder of classes)"
    requires = ("numpy", "scipy", "PIL")
    metric_info = {"brier": Metric("", higher_is_better=False)}
    Settings = ImagesSettings
    corruptions = KINDS
    corruption_sets = SETS
    renamed_corruptions = RENAMED
    # The hypernetwork is trained on augmented copies, so the base is too: a gain by augmentation must not count as OCD's.
    presets = {
        "quick": {
            "images.train_samples": 5000,
            "images.test_samples": 2000,
            "base.epochs": 15,
            "base.lr": 3e-3,
            "base.batch_size": 64,
            "base.augment": True,
            "ocd.steps": 120,
            "ocd.val_samples": 300,
        },
        "default": {
            "base.epochs": 50,
            "base.least_steps": 4000,
            "base.lr": 2e-3,
            "base.batch_size": 64,
            "base.augment": True,
            "ocd.steps": 2500,
            "ocd.lr": 2e-3,
            "ocd.depth": 2,
            "ocd.noise_draws": 2,
            "ocd.evaluations": 5,
            "ocd.gain_share": 0.8,
            "ocd.task_weight": 4.0,
        },
        "paper": {"base.epochs": 50, "base.lr": 2e-3, "base.batch_size": 64, "base.augment": True},
    }

    def datasets(self) -> Sequence[Dataset]:
        return DATASETS

    # -- data and model -----------------------------------------------------------------------------------------------
    def load_data(self, request: Request) -> Splits:
        """Pictures as float32 ``(N, C, H, W)`` in [0, 1], targets int64 ``(N,)``; see :mod:`ocd_bench_images.splits`.

        Raises:
            DataMissing: if the dataset is not found.
            UsageError: if it is damaged or of an unknown format.
        """
        from ocd_bench_images.splits import load_splits

        return load_splits(request, settings_of(request))

    def base_model(self, splits: Splits, request: Request) -> torch.nn.Module:
        """See :func:`ocd_bench_images.models.build`. Weights of a file are read here, so that the fingerprint of the base's
        initial weights depends on the content of the file, not only on its name."""
        from ocd_bench_images.models import build

        return build(splits, request, settings_of(request))

    def train_base(
        self, model: torch.nn.Module, splits: Splits, request: Request, progress: Callable[[int, int], None]
    ) -> torch.nn.Module | None:
        """The model with the weights of its file (also one that a plugin swapped in), its last layer trained where the file's
        was for other classes; a DeiT that was trained for as many classes; None, and so training by the runner, for any
        other."""
        settings = settings_of(request)
        if getattr(model, "head_is_new", False):
            if settings.norm_statistics == "training" and hasattr(model, "take_statistics"):
                model.take_statistics(splits.train, progress)  # type: ignore[operator]
            return model.train_head(splits, progress)  # type: ignore[operator, return-value]
        if settings.checkpoint not in ("", "none") and not hasattr(model, "head_is_new"):
            from ocd_bench.checkpoint import find_checkpoint, load_checkpoint

            path = find_checkpoint("images.checkpoint", settings.checkpoint, request.data_dirs)
            hint = "choose the fitting model and dataset (--set images.model=NAME)"
            return load_checkpoint(model, path, hint, key=settings.checkpoint_key, setting="images.checkpoint_key")
        from ocd_bench_images.models.weights import find_weights

        return model if getattr(model, "trained", False) or find_weights(request, settings) is not None else None

    def select_layer(self, model: torch.nn.Module, request: Request) -> str | None:
        """The paper's choice for its own architectures (``model.adapted_layer``); None for any other model."""
        return getattr(model, "adapted_layer", None)

    # -- loss and scores ----------------------------------------------------------------------------------------------
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross entropy in nats, ``(N, K), (N,) -> (N,)``."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """``accuracy`` (0 or 1), ``cross_entropy`` (nats) and ``brier`` (squared error of the probabilities, 0 to 2)."""
        from torch.nn.functional import one_hot

        error = output.softmax(-1) - one_hot(target, output.shape[-1])
        return {
            "accuracy": (output.argmax(-1) == target).to(output.dtype),
            "cross_entropy": self.loss(output, target),
            "brier": error.square().sum(-1),
        }

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def signature(self, inputs: torch.Tensor) -> torch.Tensor:
        """Level, contrast and texture of pictures, see :func:`ocd_bench_images.signature.signature`."""
        from ocd_bench_images.signature import signature

        return signature(inputs)

    # -- for the hypernetwork -----------------------------------------------------------------------------------------
    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Grey pictures: a small random affine map. Colour pictures: a random mirror image and shift. Then a quarter pass
        through a random convolution (RandConv), which reduces sensitivity to texture."""
        from ocd_bench_images.augment import random_affine, random_convolution, random_flip_shift

        change = random_affine if inputs.shape[1] == 1 else random_flip_shift
        return random_convolution(change(inputs, generator), generator), targets

    def augmented_corruptions(self, inputs: torch.Tensor) -> Sequence[str]:
        """The parts of the affine map; of colour pictures the shift. The random filters imitate no kind."""
        if inputs.shape[1] > 1:
            return ("own_translate",)
        return "own_rotate", "own_translate", "own_shear", "own_scale"

    def views(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """AugMix views for ``memo``, see :func:`ocd_bench_images.augmix.views`."""
        from ocd_bench_images.augmix import views

        return views(inputs, generator)

    def encode_input(self, splits: Splits, request: Request) -> torch.nn.Module:
        """A convolutional encoder ``(N, C, H, W) -> (N, 256)``; half as wide under the quick preset."""
        from ocd_bench_images.models.encoder import Encoder

        return Encoder(splits.train.inputs.shape[1], width=16 if request.preset == "quick" else 32)

    def encode_output(self, output: torch.Tensor) -> torch.Tensor:
        """Log-probabilities ``(N, K)``: the logits without their arbitrary constant."""
        return output.log_softmax(-1)

    # -- test conditions and pictures ---------------------------------------------------------------------------------
    def corrupt(self, inputs: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
        """See :func:`ocd_bench_images.corruptions.corrupt`."""
        from ocd_bench_images.corruptions import corrupt

        return corrupt(inputs, kind, severity, generator)

    def recorded_corruption(self, splits: Splits, kind: str, severity: int, request: Request) -> Samples | None:
        """See :func:`ocd_bench_images.sources.recorded.read_recorded`; None without ``images.corruption_files``."""
        if not settings_of(request).corruption_files:
            return None
        from ocd_bench_images.sources.recorded import read_recorded

        return read_recorded(splits, kind, severity, request, settings_of(request))

    def figures(self, splits: Splits, outputs: Mapping[str, torch.Tensor], request: Request, folder: Path) -> Sequence[Path]:
        """``changed-ocd.png``: test pictures whose answer differs between base and OCD; nothing if there are none."""
        from ocd_bench_images.figures import draw_changes

        return draw_changes(splits, outputs, folder)
