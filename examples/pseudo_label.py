import torch
from torch.nn.functional import cross_entropy

import ocd_bench
from ocd_bench.online import NORMS, Online, class_count, find_layers, scale_and_shift, use_batch_statistics


class PseudoLabelPredictor(Online):
    def adapt(self, inputs):
        output = self.model(inputs)
        logits = self.logits(output)  # (N, K)
        probability, label = logits.softmax(-1).max(-1)  # (N,) each
        confident = probability > 0.9
        if confident.any():
            self.update(cross_entropy(logits[confident], label[confident]))
        return output


class PseudoLabel(ocd_bench.Method):
    """Lee, Pseudo-label, ICML 2013 workshop on representation learning, applied to the test stream."""

    name = "pseudo-label"
    description = "scale and shift of norm layers, by confident predictions as labels, online"

    def fit(self, context):
        class_count(context)  # not applicable without class logits
        model = context.fresh_base()
        weights = scale_and_shift(find_layers(model, NORMS))  # not applicable without norm layers
        use_batch_statistics(model)
        return PseudoLabelPredictor(context, self.name, model, weights, lambda weights: torch.optim.SGD(weights, lr=0.01))


@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    register(PseudoLabel())
