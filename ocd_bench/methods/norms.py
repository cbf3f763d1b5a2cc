"""``norm-rule`` and ``ocd-norms``: each test sample's own statistics in batch norm layers, without a batch.

The rule is fixed. OCD on norm layers corrects it by a hypernetwork that is trained on training samples.
"""

from __future__ import annotations

import torch

from ocd_bench.engine.gain import Gain
from ocd_bench.engine.learn import details
from ocd_bench.engine.norm_fit import FittedNorms, NormProblem, fit_norms
from ocd_bench.engine.norm_shares import Shares, measured
from ocd_bench.engine.norms import NormLayers
from ocd_bench.engine.settings import NormSettings
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.quality import gain_detail, quality_of
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

    def __init__(self, fitted: FittedNorms) -> None:
        self._fitted = fitted
        self.parameters = fitted.parameters if fitted.history else 0
        self.detail = {"layers": len(fitted.layers.layers), **gain_detail(fitted.gain), **details(fitted.history)}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._fitted.predict(inputs)

    def hand_over(self) -> torch.nn.Module:
        """The model, the same for every batch: each sample has its own norm layers in any batch."""
        return self._fitted.model()


class NormRule(Method):
    """A share of the sample's own statistics that grows with their distance from the running ones; nothing is learnt."""

    name = "norm-rule"
    description = "each test sample's own batch norm statistics, mixed in by a rule on their distance from the usual ones"
    default = False
    leads = True

    def fit(self, context: Context) -> SharesPredictor:
        layers = norm_layers(context)
        return SharesPredictor(FittedNorms(layers, rule_of(context, layers), Gain(1.0)))


class OCDNorms(Method):
    """OCD on norm layers: three numbers for each layer say what a sample's distances mean for its shares in that layer.

    They start at the rule, and are trained with the task's loss of the changed base. The condition is what a layer sees,
    reduced to two distances. There is one pass, so the base's output is no part of it; and there are no overfitted targets.
    """

    name = "ocd-norms"
    description = "each sample's own batch norm layers, predicted by a trained correction of norm-rule"
    section = "ocd_norms"
    Settings = NormSettings
    default = False
    leads = True
    chosen = "validation"

    def fit(self, context: Context) -> SharesPredictor:
        return fitted_norms(context, context.settings("ocd_norms"))


def fitted_norms(context: Context, settings: NormSettings) -> SharesPredictor:
    """The predictor of ``ocd-norms``; also of ``ocd`` under ``select.layer=norms``. The fit is shared.

    Raises:
        NotApplicable: if the base has no norm layer in which a sample has statistics of its own.
    """
    layers, task = norm_layers(context), context.task
    problem = NormProblem(
        layers=layers,
        rule=rule_of(context, layers),
        train=(context.train.inputs, context.train.targets),
        val=(context.val.inputs, context.val.targets),
        loss=task.loss,
        device=context.device,
        augment=task.augment,
        subsample=task.subsample,
        quality=quality_of(task),
        seed=context.generator("ocd-norms", "fit").initial_seed(),
        stage=lambda what, key: context.stage(what, ("ocd-norms", key)),
    )
    return SharesPredictor(context.shared(("ocd norms", settings), lambda: fit_norms(problem, settings)))


METHODS = [NormRule(), OCDNorms()]
