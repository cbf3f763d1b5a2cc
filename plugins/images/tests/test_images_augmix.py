"""AugMix views: mixtures of a moved picture and chains of its operations."""

import torch

from ocd_bench_images.augmix import OPERATIONS, views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_are_repeatable_bounded_and_differ():
    pictures = torch.rand(4, 3, 16, 16, generator=generator())
    before = pictures.clone()
    first, again, other = (views(pictures, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(pictures, before)
    assert first.shape == pictures.shape
    assert first.dtype == pictures.dtype
    assert first.min() >= 0
    assert first.max() <= 1
    copies = views(pictures[:1].expand(8, -1, -1, -1), generator())
    assert len({copy.numpy().tobytes() for copy in copies}) == 8


def test_the_nine_operations_are_those_that_no_corruption_contains():
    assert len(OPERATIONS) == 9


def test_colour_is_mirrored_half_of_the_time_and_grey_never():
    """A picture that is bright on its right stays so on average unless it is mirrored."""
    ramp = torch.linspace(0.2, 0.8, 16).expand(1, 1, 16, 16)
    grey = views(ramp.expand(200, -1, -1, -1).contiguous(), generator())
    colour = views(ramp.expand(200, 3, -1, -1).contiguous(), generator())
    for pictures, low, high in ((grey, 0.9, 1.0), (colour, 0.35, 0.65)):
        rising = (pictures[..., 9:15].mean((1, 2, 3)) > pictures[..., 1:7].mean((1, 2, 3))).float().mean().item()
        assert low <= rising <= high


def test_one_channel_stays_one_channel():
    assert views(torch.rand(3, 1, 8, 10, generator=generator()), generator()).shape == (3, 1, 8, 10)
