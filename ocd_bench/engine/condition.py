"""I(x), what the hypernetwork is told of a sample, and the condition vector e made of it (paper section 3.1).

I(x) = (i_L, a_L, f(x)): the layer's input, the layer's activation and the model's output; e = E_i(i_L) + E_a(a_L) + E_o(f(x))
with one linear layer each. Beyond the paper, an encoder of x itself may add a fourth term: what I(x) has lost, no hypernetwork
can restore.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ocd_bench.engine.layer import Trace

Features = Mapping[str, Tensor]
"""Named features of N samples, each ``(N, D)``."""

PILOT, PIECE = 512, 32
"""Samples that an encoder's statistics are taken from, and of these how many at once."""


def flat(output: Tensor) -> Tensor:
    """``(N, ...)`` as ``(N, D)``."""
    return output.reshape(len(output), -1)


def features(
    trace: Trace, output_features: Callable[[Tensor], Tensor] = flat, fixed: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """I(x) of a trace: ``input`` ``(N, I)``, ``activation`` ``(N, O)`` and ``output`` ``(N, D)``.

    Where the layer sees several positions of a sample (pixels, rays, frames), input and activation are pooled to their mean
    and standard deviation over positions, ``(N, 2 I)`` and ``(N, 2 O)``, whose size does not depend on how many there are.

    Args:
        output_features: the model's output as features ``(N, D)``.
        fixed: features of the inputs themselves that need no training, added as ``sample``.
    """
    found = {
        "input": pool(trace.positions).float(),
        "activation": pool(trace.response).float(),
        "output": flat(output_features(trace.output)).float(),
    }
    return found if fixed is None else {**found, "sample": flat(fixed(trace.inputs)).float()}


def pool(rows: Tensor) -> Tensor:
    """``(N, P, D)`` to ``(N, D)`` if P = 1, else mean and standard deviation over P, ``(N, 2 D)``."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    return torch.cat([rows.mean(1), rows.std(1, correction=0)], 1)


def time_embedding(t: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """Sinusoidal PE(t), ``(N,) -> (N, width)``, for times in [0, 1000); ``width`` is even."""
    rates = torch.exp(-math.log(period) * torch.arange(width // 2, device=t.device, dtype=torch.float32) / (width // 2))
    angles = t.float().unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Standardise(nn.Module):
    """Features in units of the training samples' mean and standard deviation, held in buffers.

    A feature that hardly varied in training (a dead unit) tells nothing, and dividing by its deviation would let it shout
    once it does vary under shift: a deviation counts as a tenth of the typical one at least, and results end at +-limit.
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
        dropout: of the numbers of e, in training.
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
        # An untrained encoder says nearly the same of every sample; without this, training takes long to hear the difference.
        self.contrast = Standardise(encoded, limit=math.inf) if encoder is not None else None
        self.encoded = nn.Linear(encoded, width) if encoder is not None else None

    def _standards(self) -> Iterator[tuple[str, Standardise]]:
        yield from self.standard.items()  # type: ignore[misc]

    @torch.no_grad()
    def calibrate(self, values: Features, inputs: Tensor | None = None) -> None:
        """Take the statistics of training features, and of what the encoder, as it is now, makes of ``inputs`` ``(M, ...)``."""
        for name, standard in self._standards():
            standard.calibrate(values[name])
        if self.encoder is not None and self.contrast is not None and inputs is not None:
            device = next(self.encoder.parameters()).device
            self.encoder.eval()
            said = torch.cat([flat(self.encoder(piece.to(device))) for piece in inputs[:PILOT].split(PIECE)])
            self.encoder.train()
            self.contrast.calibrate(said.to(self.contrast.mean))

    def standardised(self, values: Features) -> dict[str, Tensor]:
        """Features in training units.

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
        """e from features and, where there is an encoder, the inputs ``(N, ...)`` themselves."""
        terms = [self.linear[name](value) for name, value in self.standardised(values).items()]
        if self.encoder is not None and self.contrast is not None and self.encoded is not None:
            terms.append(self.encoded(self.contrast(flat(self.encoder(inputs)))))
        return self.dropout(torch.stack(terms).sum(0))


class AuxiliaryHead(nn.Module):
    """The task's answer ``(N, D)`` read straight off the condition vector ``(N, width)``; used in training only.

    Beside a base that is right and sure of most samples, only the few others teach anything. Asked for the answer itself, the
    condition learns from all of them (deep supervision: Lee et al. 2015, arXiv 1409.5185).
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)

    def forward(self, e: Tensor) -> Tensor:
        return self.linear(nn.functional.silu(e))
