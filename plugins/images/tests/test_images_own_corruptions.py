"""Geometry, augmentation and the corruptions of our own, against scipy, colorsys and exact special cases."""

import colorsys
import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

from ocd_bench_images.augment import random_affine, random_convolution, random_flip_shift
from ocd_bench_images.corruptions import corrupt
from ocd_bench_images.corruptions.own import blur, light, noise, resample, warp
from ocd_bench_images.corruptions.own.levels import OWN
from ocd_bench_images.geometry import affine


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(side: int = 8, count: int = 60) -> torch.Tensor:
    pictures = torch.tensor(load_digits().images[:count, None] / 16, dtype=torch.float32)
    return interpolate(pictures, size=(side, side), mode="bilinear")


def photographs(side: int = 32, count: int = 40) -> torch.Tensor:
    """Smooth colour noise between black and white."""
    return interpolate(torch.rand(count, 3, 9, 9, generator=generator()), size=(side, side), mode="bicubic").clamp(0, 1)


PICTURES = {
    "8 grey": digits(8),
    "28 grey": digits(28),
    "32 colour": photographs(32),
    "20 x 26 grey": digits(28)[:, :, 4:24, 1:27],
}


# -- geometry ---------------------------------------------------------------------------------------------------------------
def test_affine_special_cases_are_exact():
    pictures = torch.rand(3, 2, 6, 6, generator=generator())
    quarter = torch.full((3,), 90.0)
    torch.testing.assert_close(affine(pictures, degrees=quarter), torch.rot90(pictures, 1, (2, 3)), atol=1e-5, rtol=0)
    moved = affine(pictures, shift=torch.tensor([[2.0, 1.0]] * 3))
    torch.testing.assert_close(moved[:, :, 1:, 2:], pictures[:, :, :-1, :-2], atol=1e-5, rtol=0)
    assert moved[:, :, :1].abs().max() < 1e-5
    assert moved[:, :, :, :2].abs().max() < 1e-5


def test_affine_agrees_with_scipy_on_pictures_that_are_not_square():
    picture = torch.rand(1, 1, 7, 12, generator=generator(), dtype=torch.float64)
    degrees, factor, slant, shift = 25.0, 1.3, 0.4, (1.5, -0.7)
    ours = affine(
        picture,
        degrees=torch.tensor([degrees]),
        scale=torch.tensor([factor]),
        shear=torch.tensor([slant]),
        shift=torch.tensor([shift]),
    )
    angle = np.deg2rad(degrees)
    # The forward map of (x, y), y down: scale, shear, rotate; scipy wants the inverse, in (row, column).
    shear = np.array([[1, -slant], [0, 1]])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ shear * factor)[::-1, ::-1]
    centre = np.array([3.0, 5.5])
    offset = centre - inverse @ (centre + np.array(shift[::-1]))
    expected = ndimage.affine_transform(picture[0, 0].numpy(), inverse, offset, order=1, mode="grid-constant")
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize(("change", "pictures"), [(random_affine, digits(28)), (random_flip_shift, photographs())])
def test_augmentation_is_repeatable_and_differs_between_samples(change, pictures):
    before = pictures.clone()
    first, again, other = (change(pictures, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(pictures, before)
    assert first.shape == pictures.shape
    copies = change(pictures[:1].expand(8, -1, -1, -1), generator())
    assert len({copy.numpy().tobytes() for copy in copies}) > 4
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-5


def test_random_filters_meet_a_share_of_the_pictures_and_are_filters():
    picture = torch.zeros(1, 1, 15, 15)
    picture[0, 0, 7, 7] = 1.0
    same = picture.expand(400, -1, -1, -1)
    changed = random_convolution(same, generator(), share=0.5)
    touched = (changed != same).flatten(1).any(1)
    assert 0.4 < touched.float().mean() < 0.6
    sides = set()
    for answer in changed[touched, 0]:
        rows, columns = (answer > 0).nonzero().T
        if len(rows) > 1:  # what a point becomes is the filter, turned round: it lies around the point
            sides.add(int(max((rows - 7).abs().max(), (columns - 7).abs().max())))
    assert sides == {1, 2, 3}
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(random_convolution(same, generator(), share=0.0), same)


def test_a_random_filter_mixes_the_colours_of_a_place():
    picture = torch.zeros(64, 3, 9, 9)
    picture[:, 0] = 0.5
    changed = random_convolution(picture, generator(), share=1.0)
    assert (changed[:, 1:].flatten(1) > 0).any(1).float().mean() > 0.5
    assert torch.equal(changed, random_convolution(picture, generator(), share=1.0))


def test_flip_shift_moves_whole_pixels_and_mirrors_half_of_them():
    picture = torch.zeros(1, 3, 16, 16)
    picture[0, :, 5, 3] = torch.tensor([0.1, 0.2, 0.3])
    changed = random_flip_shift(picture.expand(400, -1, -1, -1), generator())
    places = changed[:, 0].flatten(1).argmax(1)
    rows, columns = places // 16, places % 16
    assert set(rows.tolist()) == {3, 4, 5, 6, 7}
    assert set(columns.tolist()) == {1, 2, 3, 4, 5, 10, 11, 12, 13, 14}
    assert 0.4 < (columns > 8).float().mean() < 0.6
    torch.testing.assert_close(changed.amax((2, 3)), torch.tensor([0.1, 0.2, 0.3]).expand(400, 3))


def test_tiny_pictures_are_changed_half_as_much():
    angles = []
    for side in (15, 16):
        disc = torch.zeros(200, 1, side, side)
        disc[:, :, side // 2, side // 2] = 1
        out = random_affine(disc, generator())[:, 0]
        weight = out.sum((1, 2)).clamp(min=1e-6)
        place = (out * torch.arange(side)).sum((1, 2)) / weight
        angles.append((place - side // 2).abs().max().item() / side)
    assert angles[0] < 0.6 * angles[1]


# -- all kinds --------------------------------------------------------------------------------------------------------------
def test_there_are_enough_kinds_of_five_levels():
    assert len(OWN) == 21
    assert all(len(levels) == 5 and kind.startswith("own_") for kind, levels in OWN.items())


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", OWN)
def test_a_corruption_is_bounded_repeatable_and_grows(kind, name):
    pictures = PICTURES[name]
    before = pictures.clone()
    distances = []
    for severity in range(1, 6):
        changed = corrupt(pictures, kind, severity, generator())
        assert changed.shape == pictures.shape
        assert changed.dtype == pictures.dtype
        assert changed.min() >= 0
        assert changed.max() <= 1
        distances.append((changed - pictures).square().mean().sqrt().item())
    assert torch.equal(changed, corrupt(pictures, kind, 5, generator()))
    assert torch.equal(pictures, before)
    assert distances[0] > 0.001
    assert all(later > 0.97 * sooner for sooner, later in itertools.pairwise(distances)), distances
    assert distances[4] > 1.3 * distances[0]


# -- one by one -------------------------------------------------------------------------------------------------------------
def test_gaussian_filter_agrees_with_scipy():
    pictures = photographs(20, 2)
    ours = blur.smooth(pictures, 1.7)
    expected = ndimage.gaussian_filter(pictures.numpy(), (0, 0, 1.7, 1.7), mode="nearest", truncate=4)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_blurs_leave_a_flat_picture_flat():
    flat = torch.full((4, 3, 32, 32), 0.4)
    for kind in ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate"):
        torch.testing.assert_close(corrupt(flat, f"own_{kind}", 5, generator()), flat, atol=1e-5, rtol=0)


def test_glass_blur_takes_neighbours_only():
    pictures = torch.arange(20.0).view(1, 1, 1, 20).expand(1, 1, 20, 20) / 20
    moved = blur.glass_blur(pictures, (0.01, 3.2, 1), generator()) * 20
    distance = (moved - pictures * 20).abs()
    assert distance.max() == pytest.approx(2, abs=1e-4)  # 3.2 pixels at 32 are 2 at 20
    assert (distance > 0.5).float().mean() > 0.3


def test_noise_has_the_strength_it_says():
    grey = torch.full((1, 1, 300, 300), 0.5)
    assert (noise.gaussian_noise(grey, 0.1, generator()) - grey).std().item() == pytest.approx(0.1, rel=0.02)
    assert (noise.speckle_noise(grey, 0.2, generator()) - grey).std().item() == pytest.approx(0.1, rel=0.02)
    shot = noise.shot_noise(grey, 50, generator())
    assert shot.mean().item() == pytest.approx(0.5, rel=0.01)
    assert shot.var().item() == pytest.approx(0.5 / 50, rel=0.03)
    impulse = noise.impulse_noise(grey, 0.1, generator())
    assert (impulse == 0).float().mean().item() == pytest.approx(0.05, rel=0.1)
    assert (impulse == 1).float().mean().item() == pytest.approx(0.05, rel=0.1)


def test_brightness_is_value_of_hsv():
    pictures = torch.rand(1, 3, 5, 5, generator=generator())
    pictures[0, :, 0, 0] = 0
    ours = light.brightness(pictures, 0.2, generator())
    for row, column in np.ndindex(5, 5):
        hue, saturation, value = colorsys.rgb_to_hsv(*pictures[0, :, row, column].tolist())
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))
        np.testing.assert_allclose(ours[0, :, row, column], expected, atol=1e-5)


def test_contrast_keeps_the_mean_and_invert_is_its_own_inverse():
    pictures = photographs(16, 3)
    flat = light.contrast(pictures, 0.3, generator())
    torch.testing.assert_close(flat.mean((2, 3)), pictures.mean((2, 3)))
    torch.testing.assert_close(flat.std((2, 3)), 0.3 * pictures.std((2, 3)))
    torch.testing.assert_close(light.invert(pictures, 1.0, generator()), 1 - pictures)
    half = light.invert(pictures, 0.5, generator())
    torch.testing.assert_close(half[:, :, 8:], pictures[:, :, 8:])
    torch.testing.assert_close(light.invert(half, 0.5, generator()), pictures)


def test_fog_keeps_the_largest_value_and_differs_between_pictures():
    pictures = digits(28)
    fogged = light.fog(pictures, (1.0, 2.0), generator())
    assert (fogged.amax((1, 2, 3)) <= pictures.amax((1, 2, 3)) + 1e-6).all()
    assert (fogged[:, :, 0, 0] > 0.05).float().mean() > 0.5
    assert not torch.equal(*light.fog(pictures[:1].expand(2, -1, -1, -1), (1.0, 2.0), generator()))


def test_pixelate_averages_blocks():
    pictures = photographs(8, 2)
    expected = pictures.view(2, 3, 4, 2, 4, 2).mean((3, 5)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(resample.pixelate(pictures, 0.5, generator()), expected)


def test_occlusion_hides_one_square():
    hidden = resample.occlusion(torch.ones(50, 3, 20, 24), 0.3, generator()) == 0
    assert (hidden[:, 0].sum((1, 2)) == 36).all()
    assert (hidden[:, 0].any(1).sum(1) == 6).all()
    assert (hidden[:, 0].any(2).sum(1) == 6).all()
    assert len({row.numpy().tobytes() for row in hidden}) > 25


def test_jpeg_at_high_quality_is_nearly_the_picture():
    pictures = photographs(32, 2)[:, :1].expand(-1, 3, -1, -1)  # its colours are stored at half the size
    assert (resample.jpeg_compression(pictures, 100, generator()) - pictures).abs().mean() < 0.01
    assert (resample.jpeg_compression(digits(28), 95, generator()) - digits(28)).abs().mean() < 0.02


def test_elastic_displacement_is_what_the_level_says():
    """A ramp of one grey level per pixel turns the displacement along x into a difference."""
    ramp = torch.arange(64.0).view(1, 1, 1, 64).expand(30, 1, 64, 64) / 64
    moved = warp.elastic_transform(ramp, 1.5, generator())
    inner = (moved - ramp)[:, :, 12:-12, 12:-12] * 64
    assert inner.square().mean().sqrt().item() == pytest.approx(1.5 * 64 / 32 / 2**0.5, rel=0.15)
    steps = inner.diff(dim=-1).abs().mean() / inner.abs().mean()
    assert steps < 0.2
