"""The published constants of CIFAR-10-C, Tiny ImageNet-C and ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261;
github.com/hendrycks/robustness, ``make_cifar_c.py``, ``make_tinyimagenet_c.py``, ``make_imagenet_c.py``)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Levels(NamedTuple):
    """Severities 1 to 5 of one kind for pictures of 32, 64 and 224 pixels; lengths are in pixels of such a picture."""

    cifar: tuple[Any, ...]
    tiny_imagenet: tuple[Any, ...]
    imagenet: tuple[Any, ...]


CIFAR_SIDE, TINY_IMAGENET_SIDE = 40, 100
"""Longest side in pixels up to which the constants of CIFAR-10-C and of Tiny ImageNet-C are taken."""


def table_for(side: int) -> str:
    """Which of the three tables serves pictures whose longer side has ``side`` pixels."""
    if side <= CIFAR_SIDE:
        return "cifar"
    return "tiny_imagenet" if side <= TINY_IMAGENET_SIDE else "imagenet"


def _zooms(*counts_and_steps: tuple[int, float]) -> tuple[tuple[float, ...], ...]:
    """That many factors from 1 up, in these steps (``numpy.arange(1, 1.06, 0.01)`` has seven)."""
    return tuple(tuple(1 + place * (1 + step - 1) for place in range(count)) for count, step in counts_and_steps)


_ZOOM_SMALL = _zooms((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01))

PUBLISHED: dict[str, Levels] = {
    # standard deviation of the noise
    "gaussian_noise": Levels((0.04, 0.06, 0.08, 0.09, 0.10), (0.04, 0.08, 0.12, 0.15, 0.18), (0.08, 0.12, 0.18, 0.26, 0.38)),
    # photons at full light
    "shot_noise": Levels((500, 250, 100, 75, 50), (250, 100, 50, 30, 15), (60, 25, 12, 5, 3)),
    # share of the values
    "impulse_noise": Levels((0.01, 0.02, 0.03, 0.05, 0.07), (0.01, 0.02, 0.05, 0.08, 0.14), (0.03, 0.06, 0.09, 0.17, 0.27)),
    # radius of the disc, standard deviation of its soft edge
    "defocus_blur": Levels(
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    # standard deviation of the filter, reach, rounds
    "glass_blur": Levels(
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    # radius and standard deviation of the path
    "motion_blur": Levels(
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    # factors of the zoom
    "zoom_blur": Levels(_ZOOM_SMALL, _ZOOM_SMALL, _zooms((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))),
    # flakes: mean, standard deviation, zoom, threshold, radius and deviation of their path; weight of the picture
    "snow": Levels(
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    # weight of the picture, weight of the frost
    "frost": Levels(
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    # strength, how fast its detail fades
    "fog": Levels(
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    # amount added to the value of HSV
    "brightness": Levels((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.3, 0.4, 0.5)),
    # share of the contrast kept
    "contrast": Levels((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05), (0.4, 0.3, 0.2, 0.1, 0.05)),
    # displacement, its smoothness, movement of three corners (elastic constants are fractions of 32, 64 and 244)
    "elastic_transform": Levels(
        ((0.0, 0.0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
        ((0.0, 0.0, 5.12), (3.2, 19.2, 3.84), (6.4, 5.12, 3.84), (6.4, 1.92, 1.92), (10.24, 1.92, 1.28)),
        ((488.0, 170.8, 24.4), (488.0, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
    ),
    # share of the side kept
    "pixelate": Levels((0.95, 0.9, 0.85, 0.75, 0.65), (0.9, 0.8, 0.7, 0.6, 0.5), (0.6, 0.5, 0.4, 0.3, 0.25)),
    # quality
    "jpeg_compression": Levels((80, 65, 58, 50, 40), (65, 58, 50, 40, 25), (25, 18, 15, 10, 7)),
    # the four extra kinds: standard deviation per unit of light
    "speckle_noise": Levels((0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.25, 0.3, 0.35), (0.15, 0.2, 0.35, 0.45, 0.6)),
    # standard deviation of the filter
    "gaussian_blur": Levels((0.4, 0.6, 0.7, 0.8, 1), (0.5, 0.75, 1, 1.25, 1.5), (1, 2, 3, 4, 6)),
    # liquid: mean, deviation, smoothness, threshold; strength of water or smoothness of mud; 1 for mud
    "spatter": Levels(
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0),
            (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    ),
    # factor and offset of the saturation of HSV
    "saturate": Levels(
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
}

MAIN = tuple(PUBLISHED)[:15]
"""The 15 kinds whose mean is reported for CIFAR-10-C and ImageNet-C."""
EXTRA = tuple(PUBLISHED)[15:]
"""The four extra kinds, meant for validation."""
FROST_SCALE = {"cifar": 0.2, "tiny_imagenet": 0.3, "imagenet": 1.0}
"""Size of the frost's texture."""
