"""Kinds of our own, computed in torch: 15 ideas of the published kinds in strengths for digits on black, and ``invert``,
``rotate``, ``translate``, ``shear``, ``scale`` and ``occlusion``. Their names begin with ``own_``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def corrupt_own(pictures: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
    """As :func:`ocd_bench_images.corruptions.corrupt`, for a kind of :data:`.levels.OWN`."""
    from ocd_bench_images.corruptions.own import blur, light, noise, resample, warp
    from ocd_bench_images.corruptions.own.levels import OWN

    name = kind.removeprefix("own_")
    function = next(getattr(module, name) for module in (blur, light, noise, resample, warp) if hasattr(module, name))
    return function(pictures, OWN[kind][severity - 1], generator).clamp(0, 1).to(pictures)
