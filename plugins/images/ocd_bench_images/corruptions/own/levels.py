"""Strengths of our own kinds: made for digits on black, which bear more noise and blur than photographs do, and the same for
any picture. Lengths are pixels of a picture 32 pixels wide and scale with its side."""

from __future__ import annotations

from typing import Any

OWN: dict[str, tuple[Any, ...]] = {
    # standard deviation
    "own_gaussian_noise": (0.1, 0.17, 0.25, 0.37, 0.5),
    # photons at full light
    "own_shot_noise": (60, 25, 12, 5, 3),
    # share of the values
    "own_impulse_noise": (0.03, 0.06, 0.1, 0.17, 0.27),
    # standard deviation per unit of light
    "own_speckle_noise": (0.15, 0.25, 0.35, 0.5, 0.7),
    # standard deviation of the filter
    "own_gaussian_blur": (1.0, 1.4, 1.8, 2.2, 2.6),
    # radius
    "own_defocus_blur": (1.7, 2.2, 2.8, 3.4, 4.0),
    # standard deviation of the filter, reach, rounds
    "own_glass_blur": ((0.5, 1.6, 1), (0.6, 1.6, 2), (0.6, 2.0, 2), (0.7, 2.0, 3), (0.7, 2.5, 3)),
    # standard deviation along the path
    "own_motion_blur": (1.5, 2.0, 2.5, 3.0, 4.0),
    # largest factor
    "own_zoom_blur": (1.15, 1.25, 1.35, 1.45, 1.6),
    # strength, roughness
    "own_fog": ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    # amount added
    "own_brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    # share kept
    "own_contrast": (0.6, 0.45, 0.3, 0.2, 0.12),
    # share of the rows
    "own_invert": (0.2, 0.4, 0.6, 0.8, 1.0),
    # pixels of displacement
    "own_elastic_transform": (1.0, 1.5, 2.0, 2.5, 3.0),
    # degrees
    "own_rotate": (8.0, 15.0, 25.0, 40.0, 60.0),
    # pixels
    "own_translate": (1.0, 2.0, 3.0, 4.0, 5.0),
    # pixels per pixel
    "own_shear": (0.1, 0.2, 0.35, 0.5, 0.7),
    # logarithm of the factor
    "own_scale": (0.1, 0.2, 0.3, 0.45, 0.6),
    # share of the side kept
    "own_pixelate": (0.6, 0.45, 0.36, 0.28, 0.2),
    # quality
    "own_jpeg_compression": (40, 25, 15, 8, 4),
    # share of the side hidden
    "own_occlusion": (0.2, 0.3, 0.4, 0.5, 0.6),
}
"""Kind to its five levels."""
