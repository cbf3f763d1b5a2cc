"""Random copies of rows. All draws use the given CPU generator; rows may be on any device."""

from __future__ import annotations

import torch
from torch import Tensor

CHANGED = 0.5
"""Share of the rows that are changed."""
CELLS = 0.4
"""Largest share of the cells of such a row that are changed. The share is uniform between 0 and this."""


def swap_cells(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows ``(N, D)``. In half of them, a share of the cells is replaced by cells of the same columns of other rows.

    This is SCARF's random feature corruption (Bahri, Jiang, Tay and Metzler, ICLR 2022, arXiv 2106.15147): every cell has a
    value that occurs in training, but combinations of cells may be new. The 0/1 columns of a category are separate cells. It
    imitates no particular noise, gap or drift.
    """
    count, columns = rows.shape
    share = CELLS * torch.rand(count, 1, generator=generator)
    chosen = torch.rand(count, 1, generator=generator) < CHANGED
    swapped = chosen & (torch.rand(count, columns, generator=generator) < share)
    donors = torch.rand(count, columns, generator=generator).argsort(0)
    return torch.where(swapped.to(rows.device), rows.gather(0, donors.to(rows.device)), rows)
