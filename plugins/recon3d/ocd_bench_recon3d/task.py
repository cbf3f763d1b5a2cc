"""The ``recon3d`` task: a sample is a view, its rays the input, its picture the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ocd_bench
from ocd_bench_recon3d.datasets_list import DATASETS
from ocd_bench_recon3d.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


OVERFIT = {
    "ocd.form": "learned",
    "ocd.overfit_optimizer": "adam", "ocd.overfit_lr": 5e-3, "ocd.overfit_steps": 10, "ocd.passes": 1,
    "ocd_paper.overfit_lr": 5e-3, "ocd_paper.overfit_steps": 10, "ocd_paper.passes": 1,
}  # fmt: skip
"""Overfitting as in the paper's code, once for each view, because a step costs as much as hundreds of the hypernetwork's."""

RAYS = 4096
"""Rays of a view in overfitting (paper section 4)."""
FEW_RAYS = 256
"""Rays of a view that a training step of the hypernetwork renders."""


class Recon3D(ocd_bench.Task):
    """Novel-view synthesis with TinyNeRF (paper section 4, table 3)."""

    name = "recon3d"
    description = "novel-view synthesis: TinyNeRF on posed views (MSE, PSNR, SSIM, Chamfer distance)"
    primary_metric = "mse"
    requires = ("trimesh", "scipy", "PIL", "torchmetrics")
    Settings = Settings
    presets = {
        "quick": {
            **OVERFIT,
            "recon3d.size": 20,
            "recon3d.train_views": 16,
            "recon3d.val_views": 4,
            "recon3d.test_views": 8,
            "recon3d.samples": 12,
            "recon3d.base_steps": 400,
            "recon3d.base_rays": 512,
            "run.batch_size": 8,
            "select.samples": 2,
            "select.draws": 10,
            "ocd.steps": 60,
            "ocd.batch_size": 16,
            "ocd.basis": 16,
            "ocd.task_batch": 4,
        },
        "default": {
            **OVERFIT,
            "run.batch_size": 1,
            "select.samples": 2,
            "select.draws": 20,
            "ocd.steps": 500,
            "ocd.batch_size": 16,
            "ocd.lr": 2e-3,
            "ocd.depth": 2,
            "ocd.noise_draws": 2,
            "ocd.evaluations": 5,
            "ocd.task_weight": 30.0,
            "ocd.task_batch": 8,
        },
        "paper": {
            **OVERFIT,
            "run.batch_size": 1,
            "select.samples": 4,
            "select.draws": 200,
            "ocd.batch_size": 32,
            "ocd.task_batch": 8,
        },
    }
    corruptions = ("pose_noise",)

    def datasets(self) -> Sequence[ocd_bench.Dataset]:
        return DATASETS

    # -- data ---------------------------------------------------------------------------------------------------------
    def load_data(self, request: ocd_bench.Request) -> ocd_bench.Splits:
        import numpy as np
        import torch

        from ocd_bench_recon3d.datasets import read_views

        settings: Settings = request.settings
        views, parts, note = read_views(request)
        train, val, test = parts if parts else (np.arange(len(views.images)), np.arange(0), np.arange(0))
        # Which views are held out belongs to the dataset, not to the run: the same for every seed.
        shuffled = np.random.default_rng(0).permutation(train)
        if parts is None:
            test, shuffled = shuffled[: settings.test_views], shuffled[settings.test_views :]
        if len(val) == 0:
            val, shuffled = shuffled[: settings.val_views], shuffled[settings.val_views :]
        train = np.sort(shuffled)[: settings.train_views]
        if settings.test_views:
            test = test[: settings.test_views]
        if min(len(train), len(val), len(test)) == 0:
            raise ocd_bench.UsageError(
                f"dataset {request.dataset!r}: {len(views.images)} views are too few for {settings.train_views} training, "
                f"{settings.val_views} validation and {settings.test_views} test views; lower recon3d.val_views"
            )
        _, height, width, _ = views.images.shape
        rays = views.rays()
        targets = views.images.astype(np.float32)
        if views.surface is not None and views.mask is not None:
            targets = np.concatenate([targets, views.surface, views.mask[..., None]], -1).astype(np.float32)
        inputs, pictures = torch.from_numpy(rays), torch.from_numpy(targets)
        sizes = f"{len(train)} training, {len(val)} validation, {len(test)} test views of {width} x {height}"
        begun = f"base begins from {Path(settings.checkpoint).name}" if settings.checkpoint else ""
        note = "; ".join(filter(None, [note, sizes, begun]))
        # All views show one scene, and results are about this scene, so each view is independent of the others.
        training, validation, held_out = (
            ocd_bench.Samples(inputs[list(p)], pictures[list(p)], range(len(p))) for p in (train, val, test)
        )
        return ocd_bench.Splits(training, validation, held_out, note=note)

    # -- base model ---------------------------------------------------------------------------------------------------
    def base_model(self, splits: ocd_bench.Splits, request: ocd_bench.Request) -> torch.nn.Module:
        """TinyNeRF. A checkpoint is read here, so that the fingerprint of the base's initial weights depends on the content of
        the file, not only on its name."""
        from ocd_bench_recon3d.model import TinyNeRF

        settings: Settings = request.settings
        return with_checkpoint(TinyNeRF(settings.near, settings.far, settings.samples), request)

    def train_base(
        self,
        model: torch.nn.Module,
        splits: ocd_bench.Splits,
        request: ocd_bench.Request,
        progress: ocd_bench.Progress,
    ) -> torch.nn.Module:
        """Adam on random rays of all training views, cosine schedule (as tiny_nerf trains, whose sample is a ray)."""
        import torch

        settings: Settings = request.settings
        with_checkpoint(model, request)  # also a model that a plugin swapped in
        device = next(model.parameters()).device
        rays, colours = splits.train.inputs.reshape(-1, 6), splits.train.targets[..., :3].reshape(-1, 3)
        draw = request.generator("base-rays")
        optimizer = torch.optim.Adam(model.parameters(), settings.base_lr * (0.2 if settings.checkpoint else 1.0))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.base_steps))
        first = 0
        if state := progress.resume():
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            draw.set_state(state["draw"])
            first = state["step"]
        for step in range(first, settings.base_steps):
            chosen = torch.randint(len(rays), (settings.base_rays,), generator=draw)
            rendered = model(rays[chosen].to(device)[None, None])[0, 0, :, :3]
            loss = (rendered - colours[chosen].to(device)).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            progress(step + 1, settings.base_steps)
            progress.save(
                lambda: {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "draw": draw.get_state(),
                    "step": step + 1,  # noqa: B023
                }
            )
        return model

    def longer(self, splits: ocd_bench.Splits, request: ocd_bench.Request, samples: float) -> ocd_bench.Request:
        """More steps; a sample is a view, of H x W rays."""
        from dataclasses import replace

        settings: Settings = request.settings
        height, width = splits.train.inputs.shape[1:3]
        steps = settings.base_steps + round(samples * height * width / settings.base_rays)
        return replace(request, settings=replace(settings, base_steps=steps))

    def select_layer(self, model: torch.nn.Module, request: ocd_bench.Request) -> str | None:
        """The first layer, as in the paper."""
        return "layer1" if hasattr(model, "layer1") else None

    # -- scores -------------------------------------------------------------------------------------------------------
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of the colours, ``(N,)``."""
        return (output[..., :3] - target[..., :3]).square().flatten(1).mean(1)

    def metrics(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """MSE, PSNR (dB), SSIM and, where the surface is known, the Chamfer distance in scene units."""
        from ocd_bench_recon3d.scores import chamfer, psnr, ssim

        mse = self.loss(output, target)
        scores = {"mse": mse, "psnr": psnr(mse), "ssim": ssim(output[..., :3].clamp(0, 1), target[..., :3])}
        if target.shape[-1] == 7:
            scores["chamfer"] = chamfer(
                output[..., 3:6].flatten(1, 2), output[..., 6].flatten(1), target[..., 3:6].flatten(1, 2),
                target[..., 6].flatten(1), nothing=2.0,
            )  # fmt: skip
        return scores

    def test_time_loss(self, output: Tensor, inputs: Tensor) -> Tensor:
        """Entropy of the ray weights, mean over rays, in nats: the counterpart of Tent's entropy for a radiance field. It is
        low for a ray with a certain surface point, as for a classifier that is certain of a class."""
        return output[..., 7].flatten(1).mean(1)

    # -- conditions ---------------------------------------------------------------------------------------------------
    def subsample(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """4,096 rays of each view (the paper's number) as a smaller picture: random rows and columns, in order."""
        return some_rays(inputs, targets, RAYS, generator)

    def excerpt(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """256 rays of each view, likewise."""
        return some_rays(inputs, targets, FEW_RAYS, generator)

    def encode_input(self, splits: ocd_bench.Splits, request: ocd_bench.Request) -> torch.nn.Module:
        """An encoder of the camera's pose, computed from the rays: the most useful condition for this task."""
        from ocd_bench_recon3d.model import PoseEncoder

        return PoseEncoder()

    def encode_output(self, output: Tensor) -> Tensor:
        """A thumbnail of 8 x 8 pixels of colour and opacity, ``(N, 256)``."""
        import torch

        picture = torch.cat([output[..., :3], output[..., 6:7]], -1).movedim(-1, 1)
        return torch.nn.functional.adaptive_avg_pool2d(picture, 8).flatten(1)

    def positions(self, inputs: Tensor, output: Tensor) -> tuple[Tensor, int, Callable[[Tensor], Tensor]]:
        """The rays: origin and direction, and what the base has rendered there. The colour may change."""
        import torch

        known = torch.cat([inputs, output], -1).flatten(1, 2)  # (N, H W, 14)

        def assemble(change: Tensor) -> Tensor:
            colour = change.reshape(*output.shape[:3], 3)
            return torch.cat([colour, torch.zeros_like(output[..., 3:])], -1)

        return known, 3, assemble

    def output_picture(self, output: Tensor) -> Tensor:
        """The rendered view, ``(N, 3, H, W)``."""
        return output[..., :3].movedim(-1, 1).clamp(0, 1)

    def corrupt(self, inputs: Tensor, kind: str, severity: int, generator: torch.Generator) -> Tensor:
        """``pose_noise``: wrong camera positions, with an error of severity x 0.01 scene units (SD per axis)."""
        import torch

        moved = inputs.clone()
        step = 0.01 * severity * torch.randn(len(inputs), 1, 1, 3, generator=generator)
        moved[..., :3] += step.to(inputs)
        return moved

    # -- report -------------------------------------------------------------------------------------------------------
    def figures(
        self, splits: ocd_bench.Splits, outputs: Mapping[str, Tensor], request: ocd_bench.Request, folder: Path
    ) -> Sequence[Path]:
        """Three test views as base | OCD | oracle | truth, one PNG each."""
        from ocd_bench_recon3d.figures import side_by_side

        shown = [name for name in ("base", "ocd", "ocd-x5", "oracle") if name in outputs]
        written = []
        for number in range(min(3, len(splits.test))):
            pictures = [outputs[name][number, ..., :3] for name in shown] + [splits.test.targets[number, ..., :3]]
            written.append(side_by_side(pictures, [*shown, "truth"], folder / f"view-{number}.png"))
        return written


def some_rays(inputs: Tensor, targets: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """About ``count`` rays of each view as a smaller picture, random rows and columns in order; all if there are no more."""
    import torch

    height, width = inputs.shape[1:3]
    if height * width <= count:
        return inputs, targets
    rows = max(1, min(height, round((count * height / width) ** 0.5)))
    columns = max(1, min(width, count // rows))
    down = torch.randperm(height, generator=generator)[:rows].sort().values
    across = torch.randperm(width, generator=generator)[:columns].sort().values
    return inputs[:, down][:, :, across], targets[:, down][:, :, across]


def with_checkpoint(model: torch.nn.Module, request: ocd_bench.Request) -> torch.nn.Module:
    """``model`` with the weights of ``recon3d.checkpoint``, where there is one.

    Raises:
        UsageError: if the file does not exist, cannot be read, or its tensors do not fit the model.
    """
    from ocd_bench.checkpoint import find_checkpoint, load_checkpoint

    name = request.settings.checkpoint
    if not name:
        return model
    path = find_checkpoint("recon3d.checkpoint", name, request.data_dirs)
    key = request.settings.checkpoint_key
    return load_checkpoint(model, path, "give a state dict of TinyNeRF", key=key, setting="recon3d.checkpoint_key")
