"""Classifier-free guidance (Ho and Salimans 2022) as a variant of the diffusion; docs/findings.md calls it no gain.

The denoiser is also trained without the condition, at a share of the noise levels. A draw then goes beyond the conditional
prediction, away from the unconditional one: ``unconditional + guidance * (conditional - unconditional)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ocd_bench.engine.condition import Condition
from ocd_bench.engine.forms import Form
from ocd_bench.engine.hypernetwork import CodeNetwork, ConstantScale, HyperNetwork
from ocd_bench.engine.ocd import Build
from ocd_bench.engine.settings import OCDSettings


class GuidedHyperNetwork(HyperNetwork):
    """A hypernetwork with a trained vector in place of the condition, for predictions without one.

    Args:
        network: its parts are used, not copied.
        guidance: the guidance scale, 1 + w in the paper's notation; 1 is off.
        unconditional: share of the noise levels trained without the condition.
    """

    def __init__(self, network: HyperNetwork, guidance: float, unconditional: float) -> None:
        super().__init__(network.condition, network.network, network.scale, network.form, network.diffusion)
        self.guidance, self.unconditional = guidance, unconditional
        self.nothing = nn.Parameter(torch.zeros(network.condition.width))

    def imitate(
        self, e: Tensor, directions: Tensor, repeats: int, last: int, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        many, x0 = e.repeat(repeats, 1), directions.repeat(repeats, 1)  # (D N, width) and (D N, K)
        noise, t = self.diffusion.noise(x0, last * len(e), generator)
        withheld = torch.rand(len(many), generator=generator).to(many) < self.unconditional
        withheld[: last * len(e)] = False  # the task's loss is taken of conditional predictions only
        many = torch.where(withheld[:, None], self.nothing, many)
        error, implied = self.diffusion.loss(lambda x, t: self.network(x, t, many), x0, noise, t)
        return {"diffusion": error}, implied.reshape(repeats, *directions.shape)

    def draw(self, e: Tensor, noise: Tensor) -> Tensor:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            conditional = self.network(x, t, e)
            unconditional = self.network(x, t, self.nothing.expand_as(e))
            return unconditional + self.guidance * (conditional - unconditional)

        return torch.stack([self.diffusion.sample(denoise, one) for one in noise])


@dataclass(frozen=True)
class Guided:
    """Builds what ``build`` builds, with guidance; networks without diffusion stay as they are."""

    build: Build

    def __call__(
        self, settings: OCDSettings, form: Form, condition: Callable[[int], Condition], scale: Callable[[int], ConstantScale]
    ) -> CodeNetwork:
        network = self.build(settings, form, condition, scale)
        if not isinstance(network, HyperNetwork):
            return network
        return GuidedHyperNetwork(network, settings.guidance, settings.unconditional)
