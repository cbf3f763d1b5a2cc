"""``t3a``: test-time template adjuster (Iwasawa and Matsuo, NeurIPS 2021). No gradient, no new weights."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize, one_hot

from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.settings import T3aSettings
from ocd_bench.online import Classifier, entropy


class T3aPredictor(Predictor):
    """Holds the supports of each class, at first its weight vector.

    The features of a batch join the supports of their predicted classes before the batch is classified.
    """

    def __init__(self, classifier: Classifier, filter: int) -> None:
        self._classifier, self._filter = classifier, filter
        self.reset()

    def reset(self) -> None:
        layer = self._classifier.layer
        with torch.no_grad():
            weight = layer.weight.detach()
            self._supports = normalize(weight, dim=1)
            logits = layer.forward(weight)
            self._labels = logits.argmax(1)  # as in the authors' code; the paper takes the number of the class
            self._entropies = entropy(logits)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        features, logits = self._classifier(inputs)
        self._supports = torch.cat([self._supports, normalize(features, dim=1)])
        self._labels = torch.cat([self._labels, logits.argmax(1)])
        self._entropies = torch.cat([self._entropies, entropy(logits)])
        classes = self._classifier.layer.out_features
        if self._filter:
            self._keep(lowest_per_class(self._entropies, self._labels, classes, self._filter))
        members = one_hot(self._labels, classes).to(self._supports.dtype)
        return features @ normalize(members.T @ self._supports, dim=1).T

    def _keep(self, indices: torch.Tensor) -> None:
        self._supports, self._labels = self._supports[indices], self._labels[indices]
        self._entropies = self._entropies[indices]


def lowest_per_class(entropies: torch.Tensor, labels: torch.Tensor, classes: int, count: int) -> torch.Tensor:
    """Indices of the ``count`` lowest entropies of each class, in ascending order; of equal entropies the earlier one counts.

    Args:
        entropies: ``(N,)``.
        labels: predicted classes ``(N,)``, below ``classes``.
    """
    order = entropies.argsort(stable=True)
    members = one_hot(labels[order], classes)
    rank = (members.cumsum(0) * members).sum(1)  # 1 for the lowest of its class
    return order[rank <= count].sort().values


class T3a(Method):
    """The last linear layer is replaced by class prototypes, the mean direction of low-entropy test features, online.

    A score is the product of a feature vector and a unit prototype, as in the authors' code. It does not depend on the
    classifier's bias and scale, so its cross entropy is not calibrated.
    """

    name = "t3a"
    description = "class prototypes from confident test features in place of the last layer, online"
    section = "t3a"
    Settings = T3aSettings

    def fit(self, context: Context) -> T3aPredictor:
        return T3aPredictor(Classifier(context), context.settings("t3a").filter)


METHODS = [T3a()]
