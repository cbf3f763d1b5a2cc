"""Random copies of rows. All draws come from the given generator, on the CPU; rows may be anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

CHANGED = 0.5
"""Share of the rows that are changed at all."""
CELLS = 0.4
"""Of such a row, at most this share of the cells: uniform below it."""


def swap_cells(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows ``(N, D)``, in half of which a share of the cells is taken from other rows of the batch, column by column.

    SCARF's random feature corruption (Bahri, Jiang, Tay and Metzler, ICLR 2022, arXiv 2106.15147): each cell alone stays one
    that training knows, only what belongs together does not (a category's 0/1 columns are cells of their own). It imitates no
    noise, gap or drift in particular.
    """
    count, columns = rows.shape
    share = CELLS * torch.rand(count, 1, generator=generator)
    chosen = torch.rand(count, 1, generator=generator) < CHANGED
    swapped = chosen & (torch.rand(count, columns, generator=generator) < share)
    donors = torch.rand(count, columns, generator=generator).argsort(0)
    return torch.where(swapped.to(rows.device), rows.gather(0, donors.to(rows.device)), rows)
