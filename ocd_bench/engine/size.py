"""Whether a form's codes fit into memory, said before anything of their size is allocated."""

from __future__ import annotations

import os

import torch

from ocd_bench.engine.forms import Form
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.errors import UsageError

PILOT = 512
"""Codes that statistics are taken from; they are held twice while they are joined."""
STEP = 8
"""Tensors of the size of a training step's noisy codes that are held at once, gradients included."""


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


def check_codes(form: Form, settings: OCDSettings, device: torch.device) -> None:
    """Check that the codes of a training step and of the statistics fit; see :func:`check_size`."""
    check_size(form, _codes(settings), "weight changes", device)


def check_network(form: Form, settings: OCDSettings, device: torch.device) -> None:
    """Check that codes fit beside a network's first and last layer, K x width each, in six copies: the weights, their
    gradients, two moments, the average and the best so far; see :func:`check_size`."""
    check_size(form, 12 * settings.width + _codes(settings), "the hypernetwork and weight changes", device)


def _codes(settings: OCDSettings) -> int:
    return 2 * PILOT + STEP * settings.noise_draws * settings.batch_size
