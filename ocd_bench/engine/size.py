"""Whether a form's codes fit into memory, said before anything of their size is allocated."""

from __future__ import annotations

import os

import torch

from ocd_bench.engine.forms import Form
from ocd_bench.errors import UsageError

PILOT = 512
"""Codes that are held at once beside a batch: those that statistics are taken from."""


def memory(device: torch.device) -> int:
    """Bytes of memory that the device has in all."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_size(form: Form, numbers: int, what: str, device: torch.device) -> None:
    """Check that ``numbers`` float32 numbers for each of the form's K fit into memory.

    Raises:
        UsageError: if they do not.
    """
    needed, limit = 4 * form.size * numbers, memory(device)
    if needed > limit:
        outputs, columns = form.shape
        raise UsageError(
            f"form {form.describe()}: {what} of a layer of {outputs} x {columns} would take about {needed / 1e9:,.0f} GB, of "
            f"{limit / 1e9:,.0f} GB in all; take a shorter code (ocd.form=auto, rank-one or basis) or a smaller layer "
            "(select.layer)"
        )


def check_codes(form: Form, batch_size: int, device: torch.device) -> None:
    """Check that a batch of codes, its gradients and the codes for statistics fit; see :func:`check_size`."""
    check_size(form, PILOT + 4 * batch_size, "weight changes", device)


def check_network(form: Form, width: int, device: torch.device) -> None:
    """Check that a network's first and last layer, K x width each, fit in six copies: the weights, their gradients, two
    moments, the average and the best so far; see :func:`check_size`."""
    check_size(form, 12 * width, "the hypernetwork", device)
