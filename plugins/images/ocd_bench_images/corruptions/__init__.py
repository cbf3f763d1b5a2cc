"""Common corruptions of small pictures, five severities each, after Hendrycks & Dietterich (2019) and Mu & Gilmer (2019).

Written from the papers' descriptions and computed here: the numbers compare with each other, not with those on the published
CIFAR-10-C or MNIST-C files. Lengths are pixels of a picture 32 pixels wide and scale with its side. Not included: frost, snow
and spatter, which need photographs or have no meaning on digits.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from ocd_bench import UsageError

if TYPE_CHECKING:
    import torch

LEVELS: dict[str, tuple[Any, Any]] = {
    # standard deviation; photons per unit of light; share of pixels; standard deviation per unit of light
    "gaussian_noise": ((0.1, 0.17, 0.25, 0.37, 0.5), (0.04, 0.06, 0.08, 0.09, 0.1)),
    "shot_noise": ((60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    "impulse_noise": ((0.03, 0.06, 0.1, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": ((0.15, 0.25, 0.35, 0.5, 0.7), (0.06, 0.1, 0.12, 0.16, 0.2)),
    # standard deviation; radius; (standard deviation, reach, rounds); standard deviation along the path; largest factor
    "gaussian_blur": ((1.0, 1.4, 1.8, 2.2, 2.6), (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus_blur": ((1.7, 2.2, 2.8, 3.4, 4.0), (0.7, 0.9, 1.1, 1.3, 1.7)),
    "glass_blur": (
        ((0.5, 1.6, 1), (0.6, 1.6, 2), (0.6, 2.0, 2), (0.7, 2.0, 3), (0.7, 2.5, 3)),
        ((0.5, 1.0, 1), (0.5, 1.6, 1), (0.6, 1.6, 2), (0.6, 2.0, 2), (0.7, 2.5, 3)),
    ),
    "motion_blur": ((1.5, 2.0, 2.5, 3.0, 4.0), (0.8, 1.1, 1.4, 1.8, 2.3)),
    "zoom_blur": ((1.15, 1.25, 1.35, 1.45, 1.6), (1.06, 1.11, 1.16, 1.21, 1.26)),
    # (strength, roughness); amount added; amount kept; share of the rows
    "fog": (((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),) * 2,
    "brightness": ((0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": ((0.6, 0.45, 0.3, 0.2, 0.12), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "invert": ((0.2, 0.4, 0.6, 0.8, 1.0),) * 2,
    # pixels of displacement; degrees; pixels; pixels per pixel; logarithm of the factor
    "elastic_transform": ((1.0, 1.5, 2.0, 2.5, 3.0), (0.5, 0.8, 1.1, 1.5, 2.0)),
    "rotate": ((8.0, 15.0, 25.0, 40.0, 60.0),) * 2,
    "translate": ((1.0, 2.0, 3.0, 4.0, 5.0),) * 2,
    "shear": ((0.1, 0.2, 0.35, 0.5, 0.7),) * 2,
    "scale": ((0.1, 0.2, 0.3, 0.45, 0.6),) * 2,
    # share of the side kept; quality; share of the side hidden
    "pixelate": ((0.6, 0.45, 0.36, 0.28, 0.2), (0.7, 0.6, 0.45, 0.36, 0.28)),
    "jpeg_compression": ((40, 25, 15, 8, 4), (80, 65, 50, 30, 15)),
    "occlusion": ((0.2, 0.3, 0.4, 0.5, 0.6),) * 2,
}
"""Kind to its five levels for grey and for colour pictures: digits bear more noise and blur than photographs do."""

KINDS = tuple(LEVELS)


def corrupt(pictures: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures ``(N, C, H, W)`` in [0, 1] under a corruption: same shape, type and device, in [0, 1].

    Args:
        kind: one of :data:`KINDS`.
        severity: 1 to 5.
        generator: of the CPU; every draw comes from it.

    Raises:
        UsageError: for an unknown kind or severity.
    """
    if kind not in LEVELS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(f"unknown corruption {kind!r}{hint}; kinds: {', '.join(KINDS)}")
    if severity not in range(1, 6):
        raise UsageError(f"corruption {kind}:{severity}: severities are 1 to 5")
    from ocd_bench_images.corruptions import blur, light, noise, resample, warp

    modules = (blur, light, noise, resample, warp)
    function = next(getattr(module, kind) for module in modules if hasattr(module, kind))
    level = LEVELS[kind][pictures.shape[1] > 1][severity - 1]
    return function(pictures, level, generator).clamp(0, 1).to(pictures)
