"""The built-in methods in the order of the table: one card each, with its module. Importing this module imports no torch.

``ocd-bench list`` and ``ocd-bench config`` read the cards instead of the methods. A new built-in method is a module with a list
``METHODS``, and a card here. A test checks that card and method agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ocd_bench.engine.settings import NormSettings, OCDSettings
from ocd_bench.method import Method
from ocd_bench.methods.settings import (
    EataSettings,
    FinetuneSettings,
    LameSettings,
    LongerSettings,
    MemoSettings,
    MixNormSettings,
    OracleSettings,
    SarSettings,
    SitaSettings,
    T3aSettings,
    TentSettings,
    TtnSettings,
)
from ocd_bench.plugin import hookimpl
from ocd_bench.published.settings import PaperSettings

if TYPE_CHECKING:
    from ocd_bench.method import Context


ON_VALIDATION: Mapping[str, Any] = {"follows": True, "chosen": "validation"}
LEADS: Mapping[str, Any] = {"leads": True}
DECLARED: Mapping[str, Mapping[str, Any]] = {
    "ocd": ON_VALIDATION,
    "controls": ON_VALIDATION,
    "ocd_paper": ON_VALIDATION,
    "longer": LEADS,
    "temperature": ON_VALIDATION,
    "bn": LEADS,
    "tent": LEADS,
    "eata": LEADS,
    "sar": LEADS,
    "norms": LEADS,
    "oracle": {"chosen": "hindsight"},
}
"""What all methods of a module declare: their place in ``A+B``, and how their hyper-parameters are chosen."""


class Card(Method):
    """The declaration of a method. A card cannot be fitted.

    Args:
        module: module of this package with the method itself, in its list ``METHODS``.
        declared: members in which the method differs from :data:`DECLARED`.
    """

    def __init__(
        self,
        module: str,
        name: str,
        description: str,
        settings: Any = None,
        *,
        default: bool = True,
        uses_test_labels: bool = False,
        **declared: Any,
    ) -> None:
        self.module = module
        self.name, self.description = name, description  # type: ignore[misc]
        self.Settings, self.section = settings, settings and settings.section  # type: ignore[misc]
        self.default, self.uses_test_labels = default, uses_test_labels  # type: ignore[misc]
        for member, value in {**DECLARED.get(module, {}), **declared}.items():
            setattr(self, member, value)

    def fit(self, context: Context) -> Any:
        """Refuse.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"the card of {self.name!r} is no method: load plugins with declared=False")


CARDS = (
    Card("base", "base", "the trained base model, unchanged", follows=True),
    Card("base", "base-anew", "the base trained here, beside a stored one (run --bases)", default=False),
    Card("ocd", "ocd", "conditional diffusion of each sample's own weights, one draw", OCDSettings),
    Card("ocd", "ocd-x5", "ocd, ensemble of 5 draws", OCDSettings),
    Card(
        "ocd",
        "ocd-imitate",
        "ocd without the task's loss in its training: imitation of overfitted changes alone",
        OCDSettings,
        default=False,
    ),
    Card("ocd", "ocd-gated", "ocd, but out-of-distribution samples keep the base's weights", OCDSettings, default=False),
    Card(
        "ocd", "ocd-noscale", "ocd without the scale network: diffusion of the unnormalised change", OCDSettings, default=False
    ),
    Card("controls", "ocd-nn", "the weight change of the nearest training sample, no learning", OCDSettings),
    Card("ocd", "ocd-layer2", "ocd on the second-best layer", OCDSettings, default=False),
    Card(
        "ocd",
        "ocd-best-layer",
        "ocd on the layer where it helps validation samples most; fits every layer",
        OCDSettings,
        default=False,
    ),
    Card("ocd", "ocd-regress", "ocd's network predicting the change by regression, no diffusion", OCDSettings),
    Card("controls", "ocd-random", "random directions of the length that ocd predicts", OCDSettings),
    Card("controls", "capacity", "a plain network of the hypernetwork's size on the same inputs", OCDSettings),
    Card(
        "longer",
        "finetune",
        "the base trained further on ocd's copies for ocd's steps, without a second network",
        FinetuneSettings,
        chosen="validation",
    ),
    Card(
        "longer",
        "base-longer",
        "the base trained longer by its own recipe, by what the fit of ocd costs",
        LongerSettings,
        default=False,
    ),
    Card("temperature", "temperature", "the base's class logits times one factor, chosen on validation samples"),
    Card("bn", "bn-adapt", "batch norm statistics of the test batch, no learning"),
    Card("tent", "tent", "BatchNorm2d scale and shift by entropy minimisation, online", TentSettings),
    Card("tent", "tent-episodic", "tent restored before each test batch, output after at least one update", TentSettings),
    Card("tent", "tent-norm", "tent on batch, layer and group norm, dropout off", TentSettings),
    Card("tent", "tent-layer", "the layer OCD edits, by entropy or the task's test-time loss, online", TentSettings),
    Card("memo", "memo", "all weights, per sample, by the entropy of the mean prediction over augmentations", MemoSettings),
    Card("t3a", "t3a", "class prototypes from confident test features in place of the last layer, online", T3aSettings),
    Card("eata", "eata", "tent on reliable and non-redundant samples, with a Fisher penalty, online", EataSettings),
    Card("sar", "sar", "sharpness-aware entropy minimisation on reliable samples, online", SarSettings),
    Card("lame", "lame", "class probabilities smoothed over nearest neighbours within the test batch", LameSettings),
    Card(
        "view_statistics",
        "mixnorm",
        "batch norm statistics of a test sample and a copy of it, mixed into slowly moving ones",
        MixNormSettings,
        default=False,
    ),
    Card(
        "view_statistics",
        "sita",
        "AugBN: batch norm statistics of augmented copies of each test sample, mixed with the training set's",
        SitaSettings,
        default=False,
    ),
    Card(
        "ttn",
        "ttn",
        "batch statistics mixed with the training set's, by one trained weight per channel",
        TtnSettings,
        default=False,
    ),
    Card(
        "norms",
        "norm-rule",
        "each test sample's own batch norm statistics, mixed in by a rule on their distance from the usual ones",
        default=False,
    ),
    Card(
        "norms",
        "ocd-norms",
        "each sample's own batch norm layers, predicted by a trained correction of norm-rule",
        NormSettings,
        default=False,
        chosen="validation",
    ),
    Card("oracle", "oracle", "the layer overfitted to each test label (upper bound)", OracleSettings, uses_test_labels=True),
    Card(
        "oracle", "oracle-all", "all layers overfitted to each test label (upper bound)", OracleSettings, uses_test_labels=True
    ),
    Card(
        "ocd_paper",
        "ocd-paper",
        "the paper's U-Net on the full matrix with its hyper-parameters (slow)",
        PaperSettings,
        default=False,
    ),
    Card("ocd_paper", "ocd-paper-x5", "ocd-paper, ensemble of 5 draws (slower still)", PaperSettings, default=False),
)
"""In the order of the table."""


@hookimpl
def ocd_bench_register_methods(register: Callable[[Method], None]) -> None:
    """Register the cards, in place of the methods."""
    for card in CARDS:
        register(card)
