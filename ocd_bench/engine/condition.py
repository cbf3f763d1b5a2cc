"""The condition vector e, made of I(x): e = E_i(i_L) + E_a(a_L) + E_o(f(x)), one linear layer each (paper section 3.1).

Beyond the paper, an encoder of x itself may add a fourth term: no hypernetwork can restore what I(x) does not contain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import flat
from ocd_bench.errors import UsageError

Features = Mapping[str, Tensor]
"""Named features of N samples, each ``(N, D)``."""

PILOT, PIECE = 512, 32
"""Samples that an encoder's statistics are taken from, and how many of them at once."""


class Standardise(nn.Module):
    """Features minus the training samples' mean, divided by their standard deviation. Both are held in buffers.

    A feature that hardly varies in training (a dead unit) carries no information, but would become very large where it does
    vary, under shift. So a standard deviation counts as at least a tenth of the typical one, and results end at ±limit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, limit: float = 10.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def calibrate(self, values: Tensor) -> None:
        """Take the statistics of training features ``(M, D)``."""
        std = values.std(0, correction=0)
        typical = std.square().mean().sqrt()
        self.mean.copy_(values.mean(0))
        self.std.copy_(std.clamp(min=float(0.1 * typical)) if typical > 0 else torch.ones_like(std))

    def forward(self, values: Tensor) -> Tensor:
        return ((values - self.mean) / self.std).clamp(-self.limit, self.limit)


class Condition(nn.Module):
    """The condition vector e ``(N, width)``: the sum of one linear map per feature, and of one of the encoded sample.

    Args:
        sizes: name and length D of each feature.
        width: length of e.
        encoder: optional module from inputs ``(N, ...)`` to ``(N, E)``, trained with the rest.
        encoded: E.
        dropout: share of the numbers of e that are set to zero in training.
    """

    def __init__(
        self, sizes: Mapping[str, int], width: int, encoder: nn.Module | None = None, encoded: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.dropout = nn.Dropout(dropout)
        self.standard = nn.ModuleDict({name: Standardise(size) for name, size in sizes.items()})
        self.linear = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.encoder = encoder
        # The outputs of an untrained encoder hardly differ from sample to sample; standardised, they train much faster.
        self.contrast = Standardise(encoded, limit=math.inf) if encoder is not None else None
        self.encoded = nn.Linear(encoded, width) if encoder is not None else None

    @classmethod
    def like(
        cls, features: Features, inputs: Tensor | None, width: int, encoder: nn.Module | None, dropout: float = 0.0
    ) -> Condition:
        """The condition for samples like these few, whose features and inputs ``(N, ...)`` show the sizes.

        Args:
            encoder: trained with the rest; None for none. Where ``inputs`` is None it is not used.

        Raises:
            UsageError: if there is neither a feature nor an encoder.
        """
        sizes = {name: value.shape[1] for name, value in features.items()}
        if not sizes and encoder is None:
            raise UsageError(
                "the hypernetwork would have no input: the task has no encoder of its samples (Task.encode_input), or "
                "ocd.input_encoder is off; name some of input, activation, output in ocd.conditions"
            )
        if encoder is None or inputs is None:
            return cls(sizes, width, dropout=dropout)
        with torch.no_grad():
            encoded = flat(encoder.eval()(inputs)).shape[1]
        return cls(sizes, width, encoder, encoded, dropout)

    def _standards(self) -> Iterator[tuple[str, Standardise]]:
        yield from self.standard.items()  # type: ignore[misc]

    @torch.no_grad()
    def calibrate(self, values: Features, inputs: Tensor | None = None) -> None:
        """Take the statistics of training features, and of the encoder's outputs, as it is now, for ``inputs`` ``(M, ...)``."""
        for name, standard in self._standards():
            standard.calibrate(values[name])
        if self.encoder is not None and self.contrast is not None and inputs is not None:
            device = next(self.encoder.parameters()).device
            self.encoder.eval()
            outputs = torch.cat([flat(self.encoder(piece.to(device))) for piece in inputs[:PILOT].split(PIECE)])  # (M, E)
            self.encoder.train()
            self.contrast.calibrate(outputs.to(self.contrast.mean))

    def standardised(self, values: Features) -> dict[str, Tensor]:
        """Features in training units, each ``(N, D)``.

        Raises:
            ValueError: if a feature has another length than in training.
        """
        for name, standard in self._standards():
            if values[name].shape[1:] != standard.mean.shape:
                raise ValueError(
                    f"feature {name!r} has {tuple(values[name].shape[1:])} numbers per sample, in training it had "
                    f"{tuple(standard.mean.shape)}: pool what depends on the sample's size (Task.encode_output)"
                )
        return {name: standard(values[name]) for name, standard in self._standards()}

    def forward(self, values: Features, inputs: Tensor | None = None) -> Tensor:
        """e ``(N, width)`` from features and, where there is an encoder, the inputs ``(N, ...)`` themselves."""
        terms = [self.linear[name](value) for name, value in self.standardised(values).items()]  # each (N, width)
        if self.encoder is not None and self.contrast is not None and self.encoded is not None:
            terms.append(self.encoded(self.contrast(flat(self.encoder(inputs)))))
        return self.dropout(torch.stack(terms).sum(0))


class AuxiliaryHead(nn.Module):
    """The task's answer ``(N, D)`` from the condition vector ``(N, width)``; used in training only.

    Where the base is right and confident on most samples, the task's loss of predicted changes teaches from only a few. The
    auxiliary loss of the answer itself teaches the condition from all samples (deep supervision, Lee et al. 2015, arXiv
    1409.5185).
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)

    def forward(self, e: Tensor) -> Tensor:
        return self.linear(nn.functional.silu(e))
