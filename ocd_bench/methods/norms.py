"""``norm-rule``: each test sample's own statistics in batch norm layers, by a fixed rule that needs no batch."""

from __future__ import annotations

import torch

from ocd_bench.engine.norm_shares import Shares, adapted, measured
from ocd_bench.engine.norms import NormLayers
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.online import keep_group_norms_contiguous, probe

USUAL = 1000
"""Training samples whose distances are the usual ones."""


def norm_layers(context: Context) -> NormLayers:
    """The norm layers of a copy of the base in which a sample has statistics of its own.

    Raises:
        NotApplicable: if there is none.
    """
    model = context.fresh_base()
    keep_group_norms_contiguous(model)
    return NormLayers(model, probe(context))


def rule_of(context: Context, layers: NormLayers) -> Shares:
    """The rule, with the distances of :data:`USUAL` training samples."""
    generator = context.generator("norm-rule", "usual")
    rows = torch.randperm(len(context.train), generator=generator)[:USUAL]
    inputs, _ = context.task.subsample(context.train.inputs[rows], context.train.targets[rows], generator)
    return measured(layers, inputs.to(context.device).split(context.batch_size))


class SharesPredictor(Predictor):
    """The model with every sample's own norm layers. A sample's output does not depend on the others of its batch."""

    def __init__(self, layers: NormLayers, shares: Shares, gain: float = 1.0) -> None:
        self._layers, self._shares, self._gain = layers, shares, gain
        self.detail = {"layers": len(layers.layers)}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return adapted(self._layers, self._shares, inputs, self._gain)


class NormRule(Method):
    """A share of the sample's own statistics that grows with their distance from the running ones; nothing is learnt."""

    name = "norm-rule"
    description = "each test sample's own batch norm statistics, mixed in by a rule on their distance from the usual ones"
    default = False

    def fit(self, context: Context) -> SharesPredictor:
        layers = norm_layers(context)
        return SharesPredictor(layers, rule_of(context, layers))


METHODS = [NormRule()]
