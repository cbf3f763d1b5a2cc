"""Labelled texts in the forms that people have: any name, ending, compression, encoding; and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench.config import resolve
from ocd_bench.metrics import primary_metric
from ocd_bench.reading import Notes
from ocd_bench_nlp import texts
from ocd_bench_nlp.task import FewShotText

PAIRS = [(f"the {word} number {i} is here", kind) for i in range(12) for word, kind in (("red", "x"), ("blue", "y"))]


def request(dataset: str, folder: Path, **settings: object) -> Request:
    chosen = {"encoder": "hashed", "rounds": 0, "shots": 2, **settings}
    section = resolve(FewShotText(), [], "quick", {f"nlp.{k}": v for k, v in chosen.items()}).section("nlp")
    return Request("nlp", dataset, section, "quick", data_dirs=(folder,))


def rows(delimiter: str = ",", head: str = "text,label") -> str:
    return "\n".join([head.replace(",", delimiter), *(f"{text}{delimiter}{kind}" for text, kind in PAIRS)]) + "\n"


def test_any_form_is_found_by_name_and_gives_the_same_texts(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"label": kind, "text": text, "id": i}) + "\n" for i, (text, kind) in enumerate(PAIRS))
    forms: dict[str, bytes] = {
        "a.csv": rows().encode(),
        "b.CSV.GZ": gzip.compress(rows().encode()),
        "c.tsv": rows("\t").encode("utf-8-sig"),
        "d.jsonl": lines.encode(),
        "e.jsonl.gz": gzip.compress(lines.encode()),
        "f.json": json.dumps([{"text": text, "label": kind} for text, kind in PAIRS]).encode(),
        "g.csv": rows(";").encode("utf-16"),
        "h/data.csv": rows("|").encode(),
        "text/i/Data.NDJSON": lines.encode(),
    }
    for name, content in forms.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).with_name(f"._{Path(name).name}").write_bytes(b"stray")
    parts = [FewShotText()._texts(request(name, tmp_path), Notes()) for name in "abcdefghi"]
    assert all(part == parts[0] for part in parts[1:])
    assert sorted(parts[0][0].texts + parts[0][2].texts) == sorted(text for text, _ in PAIRS)
    with pytest.raises(DataMissing, match=r"for a folder 'z' or 'text/z', or such a file with .*\.jsonl"):
        FewShotText()._texts(request("z", tmp_path), Notes())


def test_folders_of_classes_with_a_file_for_each_text(tmp_path: Path) -> None:
    for part in ("Train", "test"):
        for index, (text, kind) in enumerate(PAIRS):
            place = tmp_path / "films" / part / kind / f"{index}_7.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{text} {part}", encoding="utf-8")
    (tmp_path / "films/Train/unsup").mkdir()
    (tmp_path / "films/Train/unsup/1.txt").write_text("nobody knows")
    (tmp_path / "films/Train/x/.DS_Store").write_text("")
    (tmp_path / "films/Train/x/picture.png").write_text("")
    (tmp_path / "films/README").write_text("")
    splits = FewShotText().load_data(request("films", tmp_path))
    assert splits.extras["classes"] == ["x", "y"]
    assert len(splits.test) == 24
    assert "folder 'unsup' left out: it is no class; 1 file left out: .png" in splits.note
    for index, (text, kind) in enumerate(PAIRS):
        place = tmp_path / "news" / kind / str(10_000 + index)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    train, _, test = texts.read_place(tmp_path / "news")
    assert (len(train), len(test)) == (19, 5)
    assert set(train.labels) == {"x", "y"}


def test_what_was_taken_is_said_and_two_candidates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["id,sentence,label", *(f"{i},{t},{k}" for i, (t, k) in enumerate(PAIRS))]))
    assert "columns 'sentence' and 'label', without id" in FewShotText().load_data(request("a", tmp_path)).note
    (tmp_path / "b.csv").write_text("text,review,label\na,b,c\n")
    with pytest.raises(UsageError, match="b.csv: 'text' and 'review' could both be the text column; name it with"):
        texts.read_file(tmp_path / "b.csv")
    assert texts.read_file(tmp_path / "b.csv", texts.Columns("review")).texts == ("b",)
    (tmp_path / "c").mkdir()
    for name in ("train.csv", "test.csv", "dev.csv", "validation.csv"):
        (tmp_path / "c" / name).write_text(rows())
    with pytest.raises(UsageError, match="dev.csv and validation.csv could both be meant"):
        texts.read_place(tmp_path / "c")
    (tmp_path / "c/dev.csv").rename(tmp_path / "c/extra.csv")
    notes = Notes()
    texts.read_place(tmp_path / "c", notes=notes)
    assert "1 file left out: extra.csv" in str(notes)


def test_an_encoding_and_a_missing_header_are_settings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(rows().replace("red", "größer").encode("cp1252"))
    with pytest.raises(UsageError, match="line 2: not utf-8 text; set nlp.encoding"):
        FewShotText()._texts(request("a", tmp_path), Notes())
    train, _, _ = FewShotText()._texts(request("a", tmp_path, encoding="cp1252"), Notes())
    assert any("größer" in text for text in train.texts)
    (tmp_path / "b.tsv").write_text(rows("\t").partition("\n")[2])
    with pytest.raises(UsageError, match="no text column"):
        FewShotText()._texts(request("b", tmp_path), Notes())
    chosen = request("b", tmp_path, header=False, text_column="column 1", label_column="column 2")
    assert len(FewShotText()._texts(chosen, Notes())[0]) == 19


@pytest.mark.parametrize(
    ("dataset", "settings", "primary"),
    [("mine", {}, "accuracy"), ("mine", {"metric": "matthews"}, "matthews"), ("cola", {}, "matthews"),
     ("cola", {"metric": "accuracy"}, "accuracy")],
)  # fmt: skip
def test_two_classes_are_scored_by_accuracy_unless_the_dataset_says_matthews(
    tmp_path: Path, dataset: str, settings: dict[str, str], primary: str
) -> None:
    (tmp_path / f"{dataset}.csv").write_text(rows())
    task = FewShotText()
    splits = task.load_data(request(dataset, tmp_path, **settings))
    output = torch.zeros(len(splits.test), 2)
    output[:, 1] = 1
    reported = task.metrics(output, splits.test.targets)
    assert primary_metric(task, reported) == primary
    assert reported["accuracy"].mean() == (splits.test.targets == 1).float().mean()
    assert task.loss(output, splits.test.targets).shape == (len(splits.test),)


RECORDED = {
    "requests": "6dc5c10ba5549b068551ec375f8ab7df006e108096b7e5abee04ddaa231e9920",
    "sst5": "47da323319e92a38c776b32a56619a64df88850b59c17cd027bc4b31caf6f541",
    "emotion": "24fca8e0722b922b2acaa01272ab1d4169893f0766d0f441edcbf211f5da0ed6",
    "ag_news": "028f21b7e50a8bd2752804c03bbab3b136a37dc5d384861559539f424c8327fd",
    "amazon_counterfactual_en": "949a37f033665b003fe38e4bde6f9b23426d8b5963ba2a56853a58c2edc51efa",
}
"""SHA-256 of texts and labels, before the readers were rewritten."""


@pytest.mark.parametrize("name", RECORDED)
def test_a_known_dataset_has_the_same_texts_as_ever(name: str) -> None:
    shared = Path(os.environ.get("OCD_BENCH_DATA") or Path(__file__).resolve().parents[3].parent / "shared" / "data")
    if name != "requests" and not (shared / "text" / name).is_dir():
        pytest.skip(f"real data {name!r}: $OCD_BENCH_DATA does not have it")
    digest = hashlib.sha256()
    for part in FewShotText()._texts(request(name, shared), Notes()):
        digest.update(repr(None if part is None else (part.texts, part.labels)).encode())
    assert digest.hexdigest() == RECORDED[name]
