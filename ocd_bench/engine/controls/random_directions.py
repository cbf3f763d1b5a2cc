"""The `ocd-random` control: random directions of the length that the hypernetwork predicts."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ocd_bench.engine.hypernetwork import Regressor
from ocd_bench.engine.ocd import FittedOCD


class RandomDirections(Regressor):
    """The noise itself as the direction."""

    def draw(self, e: Tensor, noise: Tensor) -> Tensor:
        return noise


def with_random_directions(fitted: FittedOCD) -> FittedOCD:
    """The same fit with random directions."""
    network = fitted.network
    return replace(fitted, network=RandomDirections(network.condition, network.network, network.scale, network.form).eval())
