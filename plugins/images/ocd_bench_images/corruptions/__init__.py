"""Common corruptions: the published kinds under their published names, and our own kinds under other names.

The 15 kinds of CIFAR-10-C and ImageNet-C and their 4 extra kinds are reimplemented from the paper and the published constants
(:mod:`.constants`). There are two differences from the published files: frost's texture is computed (:mod:`.frost`), and the
random numbers are different. A picture's random numbers derive from the seed and its own pixels, so the change of a picture
does not depend on the subset, order or batch. Results are truncated to 8 bits as published, and intermediate values are
rounded, so every processor gives the same result.

The names of our own kinds begin with ``own_`` (:mod:`.own`): 15 variants of published kinds with strengths for digits on black,
and 6 more.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ocd_bench import UsageError
from ocd_bench_images.corruptions.constants import EXTRA, FROST_SCALE, MAIN, PUBLISHED, table_for
from ocd_bench_images.corruptions.own.levels import OWN

if TYPE_CHECKING:
    import torch

KINDS = (*MAIN, *EXTRA, *OWN)
SETS = {"cifar10-c": MAIN, "cifar10-c-extra": EXTRA, "own": tuple(OWN)}
"""Names that stand for several kinds in ``--corruption``; the table ends with the mean over each."""
RENAMED = {name.removeprefix("own_"): name for name in OWN if name.removeprefix("own_") not in PUBLISHED} | {"all": "own"}
"""Former names of our own kinds."""
CHUNK = 2**22
"""Number of values that are processed at a time."""


def corrupt(pictures: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures ``(N, C, H, W)`` in [0, 1] under a corruption: same shape, type and device, in [0, 1].

    Args:
        kind: one of :data:`KINDS`.
        severity: 1 to 5.
        generator: of the CPU; every random number derives from it (published kinds: and from the picture).

    Raises:
        UsageError: for an unknown kind or severity.
        NotApplicable: if a kind is not defined for these pictures.
    """
    check(kind)
    if severity not in range(1, 6):
        raise UsageError(f"corruption {kind}:{severity}: severities are 1 to 5")
    if kind in OWN:
        from ocd_bench_images.corruptions.own import corrupt_own

        return corrupt_own(pictures, kind, severity, generator)
    return _published(pictures, kind, severity, generator)


def check(kind: str) -> None:
    """Refuse a kind that does not exist.

    Raises:
        UsageError: naming the new name of an old one, or the nearest.
    """
    if kind in KINDS:
        return
    if kind in RENAMED:
        raise UsageError(f"corruption {kind!r} is now called {RENAMED[kind]!r}: published names stand for published kinds only")
    close = difflib.get_close_matches(kind, KINDS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(f"unknown corruption {kind!r}{hint}; kinds: {', '.join(KINDS)}; sets: {', '.join(SETS)}")


def _published(pictures: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
    import numpy as np
    import torch

    from ocd_bench_images.corruptions import blur, digital, noise, spatter, weather
    from ocd_bench_images.corruptions.draws import Draws, picture_seeds
    from ocd_bench_images.corruptions.sampling import cut, nearest

    function = next(getattr(module, kind) for module in (noise, blur, weather, digital, spatter) if hasattr(module, kind))
    table = table_for(max(pictures.shape[-2:]))
    level = getattr(PUBLISHED[kind], table)[severity - 1]
    if kind == "frost":
        level = (*level, FROST_SCALE[table])
    levels = nearest(pictures.detach().cpu().double().permute(0, 2, 3, 1).numpy())
    seeds = picture_seeds(levels, int(torch.randint(2**62, (), generator=generator)))
    changed = np.empty_like(levels)
    rows = max(1, CHUNK // max(1, levels[0].size)) if len(levels) else 1
    for start in range(0, len(levels), rows):
        part = slice(start, start + rows)
        changed[part] = cut(function(levels[part] / 255, level, Draws(seeds[part])))
    return torch.from_numpy(changed).permute(0, 3, 1, 2).contiguous().to(pictures) / 255
