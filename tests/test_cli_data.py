"""``ocd-bench data`` against a local server, and the registry: every task can read the files that are fetched for it."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from ocd_bench import Dataset, Request, Splits, UsageError
from ocd_bench.cli import main
from ocd_bench.config import resolve
from ocd_bench.data.catalogue import Entry, catalogue
from ocd_bench.data.fetch import fetch
from ocd_bench.data.page import PLUGINS
from ocd_bench.plugin.manager import Manager, load_plugins

Files = dict[str, bytes]
"""What the server has, by path."""

PLUGIN = """
import ocd_bench
from ocd_bench import Dataset, Source

class Beads(ocd_bench.Task):
    name, primary_metric = "beads", "accuracy"
    def load_data(self, request): ...
    def base_model(self, splits, request): ...
    def loss(self, output, target): ...
    def metrics(self, output, target): ...
    def datasets(self):
        return (
            Dataset("glass", embedded=True),
            Dataset("wood", "beads of wood", folder="timber", licence="CC0", homepage="https://beads.example", sources=SOURCES),
            Dataset("ivory", homepage="https://beads.example/ivory"),
        )

@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Beads())
"""


class Handler(BaseHTTPRequestHandler):
    """Serves ``files``, without support for ranges."""

    files: Files = {}
    asked: list[str] = []

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.files, Handler.asked = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def packed(members: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A gzipped tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# -- the command ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def data(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``ocd-bench data ACTION ... --plugin beads.py --data-dir data``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")
    monkeypatch.delenv("OCD_BENCH_DATA", raising=False)
    Handler.files = {"/a.csv": b"oak,1\n", "/b.zip": packed({"more/b.csv": b"ash,2\n"})}
    sources = [
        f"Source({server + path!r}, {hashlib.sha256(content).hexdigest()!r}, {len(content)}, {path[1:]!r}, {'zip' in path})"
        for path, content in Handler.files.items()
    ]
    Path("beads.py").write_text(f"{PLUGIN}\nSOURCES = ({', '.join(sources)})\n")
    Path("data").mkdir()
    return lambda action, *words: main(["data", action, *words, "--plugin", "beads.py", "--data-dir", "data"])


def test_fetch_verify_and_list(data: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert data("list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert {name: row["where"] for name, row in rows.items()} == {
        "glass": "embedded",
        "wood": "downloadable",
        "ivory": "by hand",
    }
    assert rows["wood"]["bytes"] == sum(map(len, Handler.files.values()))
    assert data("verify", "wood") == 4
    Path("data/timber").mkdir(parents=True)
    Path("data/timber/mine.txt").write_text("oak")
    capsys.readouterr()
    assert data("verify", "wood") == 4
    said = capsys.readouterr()
    assert [line.split("  ")[0] for line in said.out.splitlines()] == ["other form wood/a.csv", "other form wood/b.zip"]
    assert "no sha256 is recorded" in said.err
    assert data("fetch") == 0
    assert Path("data/timber/a.csv").read_bytes() == b"oak,1\n"
    assert Path("data/timber/more/b.csv").read_bytes() == b"ash,2\n"
    assert Handler.asked == ["/a.csv", "/b.zip"]
    assert data("fetch", "wood") == 0
    assert "exists already" in capsys.readouterr().out
    assert len(Handler.asked) == 2
    assert data("verify", "--json") == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)["files"]] == ["ok", "ok"]
    assert data("list", "wood") == 0
    assert re.fullmatch(r"beads +wood +here +0\.0 MB +CC0\n", capsys.readouterr().out)
    assert data("fetch", "glass") == 0
    assert capsys.readouterr().out == "glass: embedded, nothing to fetch\n"


def test_a_changed_file_is_named_and_fetched_again(data: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    data("fetch")
    Path("data/timber/a.csv").write_bytes(b"elm,1\n")
    assert data("verify") == 2
    assert "timber/a.csv is not the recorded file" in capsys.readouterr().err
    assert data("fetch") == 0
    assert data("verify") == 0


def test_a_run_refuses_a_changed_file(data: Callable[..., int]) -> None:
    data("fetch")
    manager = load_plugins(["beads.py"])
    elsewhere = Path("empty")

    def load(dataset: str) -> object:
        request = Request("beads", dataset, data_dirs=(elsewhere, Path("data")))
        return manager.hook.ocd_bench_load_data(task=manager.task("beads"), request=request)

    assert load("wood") is None  # the task of this plugin loads nothing
    Path("data/timber/b.zip").write_bytes(b"was extracted long ago")
    assert load("wood") is None
    Path("data/timber/a.csv").write_bytes(b"oak,2\n")
    with pytest.raises(UsageError, match=r"data/timber/a.csv: not the file recorded for dataset 'wood'; delete it and run"):
        load("wood")
    assert load("glass") is None
    Path("data/timber/a.csv").unlink()
    assert load("wood") is None  # only the task knows whether it needs the file


def test_offline_lists_the_missing_files(data: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert data("fetch", "wood", "--offline") == 2
    assert "wood/a.csv, wood/b.zip" in capsys.readouterr().err
    assert Handler.asked == []
    data("fetch", "wood")
    assert data("fetch", "wood", "--offline") == 0


def test_datasets_that_cannot_be_fetched_are_one_line_errors(
    data: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for word, message in (("ivory", "see https://beads.example/ivory and put it into data/ivory"), ("wod", "'wood'")):
        assert data("fetch", word) == 2
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) == 1
    Handler.files["/a.csv"] = b"elm,1\n"
    assert data("fetch", "wood") == 2
    assert "the file was deleted" in capsys.readouterr().err
    assert list(Path("data/timber").iterdir()) == []


# -- the registry ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def manager() -> Manager:
    return load_plugins(only=PLUGINS)


@pytest.fixture(scope="module")
def entries(manager: Manager) -> list[Entry]:
    return catalogue(manager.tasks)


def test_every_dataset_has_a_licence_citation_and_homepage(entries: list[Entry]) -> None:
    names = [(entry.task, entry.dataset.name) for entry in entries]
    assert len(set(names)) == len(names)
    for entry in entries:
        dataset = entry.dataset
        assert dataset.description, dataset.name
        assert dataset.licence, dataset.name
        assert dataset.embedded or (dataset.citation and dataset.homepage.startswith("http")), dataset.name
        assert not (dataset.embedded and dataset.sources), dataset.name


def test_every_source_is_pinned(entries: list[Entry]) -> None:
    sources = [source for entry in entries for source in entry.dataset.sources]
    assert len({source.sha256 for source in sources}) == len(sources)
    for source in sources:
        assert re.fullmatch(r"https?://\S+", source.url)
        assert re.fullmatch(r"[0-9a-f]{64}", source.sha256), source.url
        assert source.size > 0
        assert not PurePosixPath(source.path).is_absolute()
        assert ".." not in source.path


def test_local_files_match_their_recorded_sha256(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(os.environ.get("OCD_BENCH_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (folder / "mnist").is_dir():
        pytest.skip(f"needs MNIST's files in {folder / 'mnist'}")
    assert main(["data", "verify", "mnist", "spot", "--data-dir", str(folder), "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)["files"]} == {"ok"}


# -- tasks read what was fetched: small files in the official layouts -------------------------------------------------------
def idx(array: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def mnist() -> Files:
    random = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 40), ("t10k", 20)):
        files[f"{part}-images-idx3-ubyte.gz"] = idx(random.integers(0, 256, (count, 28, 28)))
        files[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(count) % 10)
    return files


def cifar10() -> Files:
    random = np.random.default_rng(0)
    members = {}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        rows = random.integers(0, 256, (10, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(10)
        members[f"cifar-10-batches-bin/{name}.bin"] = rows.tobytes()
    return {"cifar-10-binary.tar.gz": tarred(members)}


def tiny_imagenet() -> Files:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 90)).save(buffer, "JPEG")
    top, jpeg = "tiny-imagenet-200", buffer.getvalue()
    members = {f"{top}/test/images/test_0.JPEG": jpeg}
    for word in ("n01443537", "n01629819"):
        members |= {f"{top}/train/{word}/images/{word}_{number}.JPEG": jpeg for number in range(6)}
        members |= {f"{top}/train/{word}/{word}_boxes.txt": b"", f"{top}/val/images/val_{word[-1]}.JPEG": jpeg}
    notes = "".join(f"val_{word[-1]}.JPEG\t{word}\t0\t0\t9\t9\n" for word in ("n01443537", "n01629819"))
    members[f"{top}/val/val_annotations.txt"] = notes.encode()
    return {"tiny-imagenet-200.zip": packed(members)}


def california() -> Files:
    random = np.random.default_rng(0)
    rows = np.column_stack([random.uniform(-124, -114, 60), random.uniform(32, 42, 60), random.uniform(1, 9e3, (60, 7))])
    text = "".join(",".join(f"{value:f}" for value in row) + "\n" for row in rows)
    return {
        "cal_housing.tgz": tarred(
            {"CaliforniaHousing/cal_housing.data": text.encode(), "CaliforniaHousing/cal_housing.domain": b"x"}
        )
    }


def sound(form: str, rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * rate)
    soundfile.write(buffer, noise, rate, format=form)
    return buffer.getvalue()


def librispeech() -> Files:
    speech = sound("FLAC", 16_000)
    files = {}
    for place, part in enumerate(("test-clean", "dev-clean", "train-clean-100")):
        members = {"LibriSpeech/README.TXT": b"LibriSpeech"}
        for speaker in range(100 * place, 100 * place + 4):
            folder = f"LibriSpeech/{part}/{speaker}/7"
            members |= {f"{folder}/{speaker}-7-{number:04}.flac": speech for number in range(2)}
            members[f"{folder}/{speaker}-7.trans.txt"] = b""
        files[f"{part}.tar.gz"] = tarred(members)
    return files


def fsdd() -> Files:
    speech, top = sound("WAV", 8_000), "free-spoken-digit-dataset-1.0.10"
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    members = {f"{top}/recordings/{d}_{who}_{take}.wav": speech for who in speakers for d in range(2) for take in (0, 7, 30)}
    return {f"{top}.tar.gz": tarred({f"{top}/README.md": b"#", **members})}


def spot() -> Files:
    corners = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + ["f 1 2 3", "f 1 4 2", "f 1 3 4", "f 2 4 3"]
    return {"spot.obj": "\n".join(lines).encode()}


def counterfactual() -> Files:
    rows = "".join(f'If only sentence {number} "had been\t{number % 2}\n' for number in range(12))
    head = "sentence\tis_counterfactual\n"
    return {f"{part}.tsv": (head + rows.replace("If only", part)).encode() for part in ("train", "validation", "test")}


MINIATURES: Mapping[str, Callable[[], Files]] = {
    "mnist": mnist,
    "fashion-mnist": mnist,
    "cifar10": cifar10,
    "tiny-imagenet": tiny_imagenet,
    "california_housing": california,
    "librispeech": librispeech,
    "fsdd": fsdd,
    "spot": spot,
    "amazon_counterfactual_en": counterfactual,
}
SMALL = {
    "nlp.encoder": "hashed",
    "nlp.shots": 2,
    "nlp.rounds": 0,
    "recon3d.size": 8,
    "recon3d.train_views": 2,
    "recon3d.val_views": 1,
    "recon3d.test_views": 1,
    "speech.train_mixtures": 4,
    "speech.val_mixtures": 2,
    "speech.test_mixtures": 2,
}
SHAPES = {
    "mnist": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "tiny-imagenet": (3, 64, 64),
    "california_housing": (8,),
    "librispeech": (4000,),
    "fsdd": (4000,),
    "spot": (8, 8, 6),
    "amazon_counterfactual_en": (256,),
}


def test_every_fetched_dataset_has_a_miniature(entries: list[Entry]) -> None:
    assert {entry.dataset.name for entry in entries if entry.dataset.sources} == set(MINIATURES)


def miniature(dataset: Dataset, server: str) -> Dataset:
    """The dataset with small files of the same names and layout, on our server."""
    Handler.files = {f"/{name}": content for name, content in MINIATURES[dataset.name]().items()}
    assert sorted(Handler.files) == sorted(f"/{source.path}" for source in dataset.sources)
    sources = []
    for source in dataset.sources:
        content = Handler.files[f"/{source.path}"]
        digest = hashlib.sha256(content).hexdigest()
        sources.append(dataclasses.replace(source, url=f"{server}/{source.path}", sha256=digest, size=len(content)))
    return dataclasses.replace(dataset, sources=sources)


@pytest.mark.parametrize("name", MINIATURES)
def test_fetched_datasets_can_be_read_by_their_task(
    name: str, manager: Manager, entries: list[Entry], server: str, tmp_path: Path
) -> None:
    entry = next(entry for entry in entries if entry.dataset.name == name)
    for source in miniature(entry.dataset, server).sources:
        assert fetch(tmp_path / entry.folder, source)
    task = manager.task(entry.task)
    settings = resolve(task, [], "quick", SMALL).section(task.name)
    splits = task.load_data(Request(task.name, name, settings, "quick", offline=True, data_dirs=(tmp_path,)))
    assert isinstance(splits, Splits)
    assert tuple(splits.test.inputs.shape[1:]) == SHAPES[name]
    assert torch.isfinite(splits.train.inputs).all()
