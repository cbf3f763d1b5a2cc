"""The published corruptions: beside what the originals do to given pictures, beside independent computations, and their
streams."""

import colorsys
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from ocd_bench import NotApplicable, UsageError
from ocd_bench_images.corruptions import EXTRA, KINDS, MAIN, SETS, corrupt
from ocd_bench_images.corruptions.constants import PUBLISHED, table_for
from ocd_bench_images.corruptions.draws import Draws, picture_seeds
from ocd_bench_images.corruptions.frost import textures
from ocd_bench_images.corruptions.sampling import clipped_zoom, hsv_to_rgb, rgb_to_hsv
from ocd_bench_images.corruptions.spatter import edges
from ocd_bench_images.corruptions.weather import plasma

DATA = Path(os.environ.get("OCD_BENCH_DATA") or Path(__file__).resolve().parents[3].parent / "shared" / "data")
REFERENCE = DATA.parent / "review" / "corruptions"
FIXED = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate"}
"""Kinds without random numbers."""
UNKNOWN = {"motion_blur", "snow", "frost"}
"""Kinds whose originals need ImageMagick or photographs: no reference numbers."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(count: int = 6, side: int = 32, channels: int = 3) -> torch.Tensor:
    """Smooth colour noise on the 256 levels of 8 bits."""
    coarse = torch.rand(count, channels, 9, 9, generator=generator(1))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (fine * 255).round() / 255


# -- beside the originals ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [kind for kind in (*MAIN, *EXTRA) if kind not in UNKNOWN])
def test_the_mean_change_is_that_of_the_published_function(kind):
    """On 100 CIFAR-10 test pictures at five severities: 5 % for fixed kinds, 10 % for random ones."""
    if not (REFERENCE / "original.json").exists():
        pytest.skip("the originals' numbers (review/corruptions beside the shared data) are not here")
    expected = json.loads((REFERENCE / "original.json").read_text())[kind]
    pictures = torch.from_numpy(np.load(REFERENCE / "pictures.npz")["images"]).permute(0, 3, 1, 2) / 255
    changes = [(corrupt(pictures, kind, level, generator()) - pictures).abs().mean().item() for level in range(1, 6)]
    assert changes == pytest.approx(expected, rel=0.05 if kind in FIXED else 0.10)


# -- all kinds --------------------------------------------------------------------------------------------------------------
def test_the_sets_are_the_published_ones():
    assert len(SETS["cifar10-c"]) == 15
    assert SETS["cifar10-c-extra"] == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert len(set(KINDS)) == len(KINDS)
    assert all(len(levels) == 5 for tables in PUBLISHED.values() for levels in tables)
    assert [table_for(side) for side in (8, 32, 64, 224)] == ["cifar", "cifar", "tiny_imagenet", "imagenet"]


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("kind", [*MAIN, *EXTRA])
def test_a_kind_gives_8_bits_repeats_itself_and_leaves_its_input(kind, side):
    pictures = photographs(3, side)
    before = pictures.clone()
    first, again, other = (corrupt(pictures, kind, 4, generator(seed)) for seed in (0, 0, 1))
    assert first.shape == pictures.shape
    assert first.dtype == pictures.dtype
    assert torch.equal(first, again)
    assert torch.equal(first, other) is (kind in FIXED)
    assert torch.equal((first * 255).round() / 255, first)
    assert not torch.equal(first, pictures)
    assert torch.equal(pictures, before)


@pytest.mark.parametrize("kind", [*MAIN, *EXTRA])
def test_a_picture_is_changed_alike_in_any_subset_and_order(kind):
    pictures = photographs(5)
    whole = corrupt(pictures, kind, 3, generator())
    torch.testing.assert_close(corrupt(pictures[[3, 1]], kind, 3, generator()), whole[[3, 1]], atol=0, rtol=0)


def test_equal_pictures_get_random_numbers_of_their_own():
    pictures = photographs(1).expand(3, -1, -1, -1)
    changed = corrupt(pictures, "gaussian_noise", 5, generator())
    assert not torch.equal(changed[0], changed[1])
    assert torch.equal(changed[0], corrupt(pictures[:1], "gaussian_noise", 5, generator())[0])


@pytest.mark.parametrize("kind", [kind for kind in (*MAIN, *EXTRA) if kind != "saturate"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 20), (3, 30, 17)])
def test_grey_small_and_oblong_pictures_are_changed_too(kind, shape):
    pictures = (torch.rand(2, *shape, generator=generator()) * 255).round() / 255
    changed = corrupt(pictures, kind, 5, generator())
    assert changed.shape == pictures.shape
    assert not torch.equal(changed, pictures)


def test_grey_pictures_have_no_saturation_to_change():
    with pytest.raises(NotApplicable, match="no saturation"):
        corrupt(photographs(1, 8, 1), "saturate", 1, generator())


def test_no_pictures_stay_no_pictures():
    assert corrupt(torch.zeros(0, 3, 32, 32), "fog", 3, generator()).shape == (0, 3, 32, 32)


def test_what_does_not_exist_is_refused_and_an_old_name_tells_its_new_one():
    pictures = photographs(1)
    for kind, severity, message in (
        ("gausian_noise", 1, "did you mean 'gaussian_noise'"),
        ("fog", 0, "severities are 1 to 5"),
        ("rotate", 1, "now called 'own_rotate'"),
        ("occlusion", 1, "now called 'own_occlusion'"),
    ):
        with pytest.raises(UsageError, match=message):
            corrupt(pictures, kind, severity, generator())


GOLDEN = {
    "gaussian_noise": "2ec21c88b7a9c7cf",
    "shot_noise": "a43f5662c0f85522",
    "impulse_noise": "8c557f323ca9bba3",
    "defocus_blur": "3f381b8726591c95",
    "glass_blur": "4a760ba88c241ed9",
    "motion_blur": "f32d721ba77771df",
    "zoom_blur": "d29a3e67d128c553",
    "snow": "2b906c6ea8d1a9db",
    "frost": "b5da7edcebcdc4ae",
    "fog": "6696a7fd0a8a2210",
    "brightness": "dd96e1873191dcfc",
    "contrast": "b995a2d9050bab7f",
    "elastic_transform": "4b09a9efd364ee0d",
    "pixelate": "3d6a0beed392f2c1",
    "jpeg_compression": "da0825f79273713f",
    "speckle_noise": "918169e96d96d77d",
    "gaussian_blur": "7b0e58a3aa5839a8",
    "spatter": "8db5945ef5014a8c",
    "saturate": "d8dd43cf691bad39",
}
"""Beginning of the SHA-256 of four pictures at five severities. Processors must not differ; versions of Pillow or SciPy may."""


def test_every_processor_gives_the_same_bytes():
    levels = np.random.RandomState(0).randint(0, 256, (4, 5, 5, 3)).astype(np.uint8)
    enlarged = np.kron(levels, np.ones((1, 7, 7, 1), np.uint8))[:, :32, :32]
    pictures = torch.from_numpy(enlarged).permute(0, 3, 1, 2) / 255
    found = {}
    for kind in GOLDEN:
        digest = hashlib.sha256()
        for severity in range(1, 6):
            changed = corrupt(pictures, kind, severity, generator(3))
            digest.update((changed * 255).round().byte().numpy().tobytes())
        found[kind] = digest.hexdigest()[:16]
    assert found == GOLDEN


# -- one by one, beside another computation ---------------------------------------------------------------------------------
def level_of(kind: str, severity: int):
    return PUBLISHED[kind].cifar[severity - 1]


def test_noise_has_the_published_strength():
    grey = torch.full((1, 3, 40, 40), 128 / 255)
    for kind, sigma in (("gaussian_noise", 0.10), ("speckle_noise", 0.2 * 128 / 255)):
        assert corrupt(grey, kind, 5, generator()).std().item() == pytest.approx(sigma, rel=0.05)
    assert corrupt(grey, "shot_noise", 5, generator()).var().item() == pytest.approx(128 / 255 / 50, rel=0.1)
    impulse = corrupt(grey, "impulse_noise", 5, generator())
    assert (impulse == 0).float().mean().item() == pytest.approx(0.035, abs=0.01)
    assert (impulse == 1).float().mean().item() == pytest.approx(0.035, abs=0.01)


def test_a_gaussian_filter_is_scipys_channel_by_channel():
    picture = photographs(1)
    ours = (corrupt(picture, "gaussian_blur", 5, generator())[0] * 255).round().numpy()
    for channel in range(3):
        expected = ndimage.gaussian_filter(picture[0, channel].double().numpy(), 1.0, mode="nearest", truncate=4) * 255
        np.testing.assert_allclose(ours[channel], np.floor(np.round(expected, 6)), atol=1)


def test_zoom_is_scipys_zoom_of_the_middle():
    picture = np.random.RandomState(0).rand(33, 33)
    for factor in (1.04, 1.25, 1.75):
        cropped = int(np.ceil(33 / factor))
        top = (33 - cropped) // 2
        large = ndimage.zoom(picture[top : top + cropped, top : top + cropped], factor, order=1)
        trim = (len(large) - 33) // 2
        expected = large[trim : trim + 33, trim : trim + 33]
        np.testing.assert_allclose(clipped_zoom(picture[None, :, :, None], factor)[0, :, :, 0], expected, atol=1e-9)


def test_hue_saturation_and_value_are_those_of_the_standard_library():
    pictures = np.random.RandomState(0).rand(1, 4, 4, 3)
    pictures[0, 0, 0], pictures[0, 0, 1] = 0.0, 0.5
    hue, saturation, value = rgb_to_hsv(pictures)
    for row, column in np.ndindex(4, 4):
        expected = colorsys.rgb_to_hsv(*pictures[0, row, column])
        found = (hue[0, row, column] / 6, saturation[0, row, column], value[0, row, column])
        np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(hsv_to_rgb(hue, saturation, value), pictures, atol=1e-12)


def test_blurs_leave_a_flat_picture_flat():
    flat = torch.full((2, 3, 32, 32), 100 / 255)
    for kind in ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate"):
        torch.testing.assert_close(corrupt(flat, kind, 5, generator()), flat, atol=1.01 / 255, rtol=0)


def test_motion_goes_along_one_path_of_the_published_length():
    point = torch.zeros(1, 1, 32, 32)
    point[0, 0, 16, 16] = 1.0
    blurred = corrupt(point, "motion_blur", 5, generator())[0, 0]
    rows, columns = blurred.nonzero().T
    spread = max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))
    radius, sigma = level_of("motion_blur", 5)
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    visible = int((np.floor(255 * weights / weights.sum() + 0.5) > 0).sum())
    assert spread == visible - 1
    assert (16, 16) in zip(rows.tolist(), columns.tolist(), strict=True)
    assert blurred.max().item() == pytest.approx(weights[0] / weights.sum(), abs=1 / 255)


def test_glass_takes_values_of_neighbours_at_most_as_far_as_published():
    ramp = (torch.arange(32.0) * 8 / 255).expand(1, 1, 32, 32)
    moved = corrupt(ramp, "glass_blur", 1, generator())  # one round, one pixel, a filter that changes nothing
    distance = ((moved - ramp) * 255 / 8).round()[0, 0, 2:-2, 2:-2]
    assert distance.min() == -1  # the draws are -1 and 0
    assert distance.max() <= 0
    assert (distance != 0).float().mean() > 0.3


def test_clouds_repeat_periodically_and_are_rougher_with_less_decay():
    draws = [Draws([np.array([seed], np.uint32)]) for seed in (0, 0)]
    smooth, rough = (plasma(32, decay, draw)[0] for decay, draw in zip((3.0, 1.75), draws, strict=True))
    assert smooth.min() == 0
    assert smooth.max() == 1
    assert np.abs(np.diff(rough)).mean() > 1.2 * np.abs(np.diff(smooth)).mean()
    assert np.abs(smooth[:, 0] - smooth[:, -1]).mean() < 3 * np.abs(np.diff(smooth)).mean()


def test_frost_has_the_colours_it_says_and_five_textures():
    bank = textures(0.2, 32)
    assert len(bank) == 5
    assert len({texture.tobytes() for texture in bank}) == 5
    np.testing.assert_allclose(bank.mean((1, 2))[0], (0.31, 0.58, 0.65), atol=0.01)
    assert 0.03 < bank[4].std((0, 1)).mean() < 0.16


def test_edges_of_a_square_are_its_outline():
    square = np.zeros((1, 20, 20), np.uint8)
    square[0, 6:14, 6:14] = 200
    found = edges(square)[0]
    assert found.any()
    rows, columns = np.nonzero(found)
    assert {*rows.tolist(), *columns.tolist()} <= set(range(5, 15))
    assert not found[8:12, 8:12].any()
    assert not edges(np.full((1, 20, 20), 90, np.uint8)).any()


def test_streams_depend_on_pixels_seed_and_repetition_only():
    pictures = np.array([[1, 2], [3, 4], [1, 2]], np.uint8)
    seeds = [seed.tobytes() for seed in picture_seeds(pictures, 5)]
    assert len(set(seeds)) == 3
    assert [seed.tobytes() for seed in picture_seeds(pictures[::-1], 5)] == [seeds[0], seeds[1], seeds[2]]
    assert seeds[0] != picture_seeds(pictures, 6)[0].tobytes()
