"""The hypernetwork: from I(x) to the code of ΔW, a length times a direction, rho(I(x)) g_u(I(x)) (paper section 3.2).

The code c of an overfitted ΔW is split into its length ‖c‖, which the scale network learns, and its direction c √K / ‖c‖, which
the diffusion model learns. This is the paper's division by the norm, times a constant that gives each of the K numbers unit
variance, as the noise has. For orthonormal forms (full, basis) the length is the norm of ΔW. For rank one it is the norm of
ΔW a, the change of the layer's response.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.engine.condition import Condition
from ocd_bench.engine.diffusion import Diffusion
from ocd_bench.engine.forms import Form

if TYPE_CHECKING:
    from ocd_bench.engine.targets import Targets

DECIBEL = 10 / math.log(10)


def time_embedding(t: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """Sinusoidal PE(t), ``(N,) -> (N, width)``, for times in [0, 1000); ``width`` is even."""
    rates = torch.exp(-math.log(period) * torch.arange(width // 2, device=t.device, dtype=torch.float32) / (width // 2))
    angles = t.float().unsqueeze(1) * rates  # (N, width / 2)
    return torch.cat([angles.sin(), angles.cos()], 1)


class Block(nn.Module):
    """``h + gate * MLP(shift + (1 + scale) * LayerNorm(h))``; shift, scale and gate, ``(N, 3 * width)`` together, are ``steer``
    of the condition ``(N, width)``.

    An adaLN-Zero block (Peebles and Xie 2023): the gate starts at zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.steer = nn.Linear(width, 3 * width)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, h: Tensor, steering: Tensor) -> Tensor:
        shift, scale, gate = steering.chunk(3, -1)  # each (N, width)
        return h + gate * self.net(shift + (1 + scale) * self.norm(h))


class Trunk(nn.Module):
    """``depth`` blocks from a condition ``(N, width)``, and optionally a start ``(N, width)``, to ``(N, size)``.

    Without a start it is the regressor of `ocd-regress` and of the `capacity` control: the same network without diffusion.
    """

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.begin = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, condition: Tensor, start: Tensor | None = None) -> Tensor:
        return self.steered(self.steering(condition), start)

    def steering(self, condition: Tensor) -> Iterator[Tensor]:
        """What depends on the condition alone, in the order of its use: the beginning, and the steering of each block."""
        condition = F.silu(condition)
        yield self.begin(condition)
        for block in self.blocks:
            yield block.steer(condition)  # type: ignore[operator, union-attr]

    def steered(self, steering: Iterable[Tensor], start: Tensor | None = None) -> Tensor:
        """The rest."""
        parts = iter(steering)
        begin = next(parts)
        h = begin if start is None else begin + start  # (N, width)
        for block, part in zip(self.blocks, parts, strict=True):
            h = block(h, part)
        return self.last(F.silu(self.norm(h)))


class FastDenoiser(nn.Module):
    """Denoiser of codes ``(N, size)`` at times ``(N,)`` in [0, 1000), given condition vectors ``(N, width)``."""

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.width = width + width % 2
        self.code = nn.Linear(size, width)
        self.time = nn.Sequential(nn.Linear(self.width, width), nn.SiLU(), nn.Linear(width, width))
        self.trunk = Trunk(size, width, depth)

    def forward(self, code: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        time = self.time(time_embedding(t, self.width).to(code.dtype))
        return self.trunk(condition + time, self.code(code))

    def several(self, codes: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The same for D codes of each sample, ``(D, N, size)``. What does not depend on the code is computed once."""
        time = self.time(time_embedding(t, self.width).to(codes.dtype))
        steering = tuple(self.trunk.steering(condition + time))
        return torch.stack([self.trunk.steered(steering, self.code(code)) for code in codes])


class ConstantScale(nn.Module):
    """One length for all samples, the root mean square length of training codes: no scale network (paper's ablation).

    Directions then keep the lengths of their codes, divided by that constant.
    """

    length: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("length", torch.ones(()))

    @torch.no_grad()
    def calibrate(self, code: Tensor) -> None:
        """Take the statistics of training codes ``(M, K)``.

        Raises:
            ValueError: if all codes are zero: there is nothing to learn.
        """
        lengths = code.norm(dim=1)
        if not lengths.any():
            raise ValueError("overfitting changes no weight of any training sample")
        self.length.copy_(lengths.square().mean().sqrt())

    def split(self, code: Tensor) -> Tensor:
        """Directions ``(N, K)`` of codes ``(N, K)``."""
        return code * code.shape[1] ** 0.5 / self.length

    def join(self, e: Tensor, directions: Tensor) -> Tensor:
        """Codes ``(D, N, K)`` of directions ``(D, N, K)`` under condition vectors ``(N, width)``."""
        return directions * self.length / directions.shape[-1] ** 0.5

    def losses(self, e: Tensor, code: Tensor) -> dict[str, Tensor]:
        """Training losses by name, scalars: none."""
        return {}

    @torch.no_grad()
    def pairs(self, e: Tensor, code: Tensor) -> Tensor:
        """Lengths of codes beside the predicted ones, ``(N, 2)``: none to compare."""
        return torch.empty(0, 2)


class ScaleNetwork(ConstantScale):
    """The scale network rho(I(x)) (paper section 3.2): positive lengths ``(N,)`` from condition vectors ``(N, width)``.

    It predicts log rho in units of the training lengths' own standard deviation, as lengths range over orders of magnitude. It
    starts at their geometric mean and stays within four standard deviations of it, so that an out-of-distribution sample cannot
    get an extreme length.

    Args:
        condition: width of the condition vector.
        loss: ``"log"``, squared error of log rho in the units above, or ``"db"``, the published loss in decibels.
    """

    LIMIT = 4.0

    mean: Tensor
    std: Tensor

    def __init__(self, condition: int, width: int = 128, loss: Literal["log", "db"] = "log") -> None:
        super().__init__()
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)
        self.loss = loss
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    @torch.no_grad()
    def calibrate(self, code: Tensor) -> None:
        super().calibrate(code)
        log = self.lengths(code).log()
        self.mean.copy_(log.mean())
        self.std.copy_(log.std(correction=0).clamp(min=0.1))

    def lengths(self, code: Tensor) -> Tensor:
        """Lengths ``(N,)`` of codes ``(N, K)``, at least a thousandth of the typical one; a shorter code is no change."""
        return code.norm(dim=1).maximum(self.shortest(1e-3))

    def split(self, code: Tensor) -> Tensor:
        lengths = code.norm(dim=1, keepdim=True)  # (N, 1); the zero code stays zero
        return code * code.shape[1] ** 0.5 / lengths.maximum(self.shortest(1e-8))

    def shortest(self, share: float) -> Tensor:
        """A share of the typical length, as a tensor: reading a number would wait for the GPU."""
        return (share * self.length.double()).to(self.length.dtype)

    def join(self, e: Tensor, directions: Tensor) -> Tensor:
        return directions * self(e).unsqueeze(1) / directions.shape[-1] ** 0.5

    def losses(self, e: Tensor, code: Tensor) -> dict[str, Tensor]:
        lengths = self.lengths(code)
        if self.loss == "db":
            # Its gradient grows without bound near the answer, so it must not reach the condition, which the direction shares.
            return {"scale": scale_loss_db(self(e.detach()), lengths).mean()}
        # In units of the lengths' own variance, so that it weighs the same for every task.
        return {"scale": scale_loss_log(self(e), lengths).mean() / self.std**2}

    @torch.no_grad()
    def pairs(self, e: Tensor, code: Tensor) -> Tensor:
        """Lengths of codes beside the predicted ones, ``(N, 2)``."""
        return torch.stack([self.lengths(code), self(e)], 1)

    def forward(self, e: Tensor) -> Tensor:
        log = self.mean + self.std * self.LIMIT * torch.tanh(self.net(e).squeeze(-1) / self.LIMIT)  # (N,)
        return log.exp()


def scale_loss_db(rho: Tensor, rho_s: Tensor) -> Tensor:
    """The published loss in decibels, per sample ``(N,)``: ``10 log10(|rho - rho_s|**2 / rho_s)``.

    It falls without bound as rho nears rho_s. The difference is kept above 1e-4 rho_s, which bounds the gradient and changes no
    value further away than that.
    """
    difference = (rho - rho_s).abs().maximum(1e-4 * rho_s)
    return DECIBEL * (2 * difference.log() - rho_s.log())


def scale_loss_log(rho: Tensor, rho_s: Tensor) -> Tensor:
    """Squared error of the logarithm, per sample ``(N,)``: relative errors count the same at every length."""
    return (rho.log() - rho_s.log()) ** 2


class CodeNetwork(nn.Module):
    """From features of samples to codes: a condition, a network for directions, and a scale for lengths.

    Args:
        condition: features to condition vectors ``(N, width)``.
        network: gives directions; see the subclasses.
        scale: gives lengths.
        form: the meaning of codes of K numbers; a learned form is trained with the rest.
    """

    def __init__(self, condition: Condition, network: nn.Module, scale: ConstantScale, form: Form) -> None:
        super().__init__()
        self.condition, self.network, self.scale, self.form = condition, network, scale, form

    def calibrate(self, targets: Targets) -> None:
        """Take the statistics of training targets, of features and of codes.

        Raises:
            ValueError: if all codes are zero: there is nothing to learn.
        """
        self.scale.calibrate(targets.code)
        self.condition.calibrate(targets.features, targets.inputs)

    @abstractmethod
    def imitate(
        self, e: Tensor, directions: Tensor, repeats: int, last: int, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Training loss by name, a scalar, and the directions ``(D, N, K)`` that the network implies.

        Args:
            e: condition vectors ``(N, width)``.
            directions: of the overfitted ΔW, ``(N, K)``.
            repeats: noise levels per sample.
            last: so many of them per sample are the last level, where sampling starts.
        """

    @abstractmethod
    def draw(self, e: Tensor, noise: Tensor) -> Tensor:
        """Directions ``(D, N, K)`` for D draws of N samples, from standard normal noise of that shape."""


class HyperNetwork(CodeNetwork):
    """Directions by conditional diffusion. The network is a denoiser ``(code (N, K), t (N,), e (N, width)) -> (N, K)``."""

    def __init__(
        self, condition: Condition, network: nn.Module, scale: ConstantScale, form: Form, diffusion: Diffusion
    ) -> None:
        super().__init__(condition, network, scale, form)
        self.diffusion = diffusion

    def imitate(
        self, e: Tensor, directions: Tensor, repeats: int, last: int, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        many, x0 = e.repeat(repeats, 1), directions.repeat(repeats, 1)  # (D N, width) and (D N, K)
        noise, t = self.diffusion.noise(x0, last * len(e), generator)
        error, implied = self.diffusion.loss(lambda x, t: self.network(x, t, many), x0, noise, t)
        return {"diffusion": error}, implied.reshape(repeats, *directions.shape)

    def draw(self, e: Tensor, noise: Tensor) -> Tensor:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            t = t[:1].expand(len(e))  # all draws are at one noise level
            if isinstance(self.network, FastDenoiser):
                return self.network.several(x, t, e)
            return torch.stack([self.network(one, t, e) for one in x])

        return self.diffusion.sample(denoise, noise)


class Regressor(CodeNetwork):
    """Directions by regression, without diffusion: all draws are equal. The network is ``e (N, width) -> (N, K)``."""

    def imitate(
        self, e: Tensor, directions: Tensor, repeats: int, last: int, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        implied = self.network(e)
        return {"regression": F.mse_loss(implied, directions)}, implied.unsqueeze(0)

    def draw(self, e: Tensor, noise: Tensor) -> Tensor:
        return self.network(e).expand(noise.shape)
