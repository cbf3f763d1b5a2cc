"""Fetching from a real HTTP server on this machine: resuming, verification, safe extraction."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ocd_bench import Dataset, Source, Task, UsageError
from ocd_bench.data.catalogue import catalogue, choose
from ocd_bench.data.fetch import fetch, state, unpack

CONTENT = bytes(range(256)) * 2000


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, with ranges for most paths. ``/breaks`` closes the first connection half way."""

    asked: list[str | None] = []
    broken = False

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/whole" else 0
        self.send_response(206 if start else 200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/breaks" and not type(self).broken:
            type(self).broken = True
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked, Handler.broken = [], False
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def source(url: str, content: bytes = CONTENT) -> Source:
    return Source(url, hashlib.sha256(content).hexdigest(), len(content), "file.bin")


def test_a_file_is_fetched_once(server: str, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    assert fetch(tmp_path, source(f"{server}/x"), lambda *what: told.append(what))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert told[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert not fetch(tmp_path, source(f"{server}/x"))
    assert len(Handler.asked) == 1


@pytest.mark.parametrize("path", ["x", "whole"])
def test_a_broken_download_is_resumed_or_begun_again(server: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(tmp_path, source(f"{server}/{path}"))
    assert Handler.asked == ["bytes=1000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert not (tmp_path / "file.bin.part").exists()


def test_an_interrupted_download_keeps_the_received_part(server: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the same command resumes it"):
        fetch(tmp_path, source(f"{server}/breaks"))
    half = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < half < len(CONTENT)
    assert fetch(tmp_path, source(f"{server}/breaks"))
    assert Handler.asked[-1] == f"bytes={half}-"
    assert state(tmp_path, source(server)) == "ok"


def test_another_content_is_never_kept(server: str, tmp_path: Path) -> None:
    other = Source(f"{server}/x", "0" * 64, len(CONTENT), "file.bin")
    with pytest.raises(UsageError, match=r"expected 000000000000….*the file was deleted"):
        fetch(tmp_path, other)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        fetch(tmp_path, source("http://127.0.0.1:9/x"))


def test_a_file_is_ok_absent_or_corrupted(tmp_path: Path) -> None:
    what = source("http://127.0.0.1:9/x")
    assert state(tmp_path, what) == "absent"
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1] + b"\0")
    assert state(tmp_path, what) == "corrupted"


def test_archives_stay_inside_their_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as file:
        file.writestr("a/b.txt", "b")
    unpack(tmp_path / "good.zip", tmp_path / "in")
    assert (tmp_path / "in" / "a" / "b.txt").read_text() == "b"
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("../out.txt", "x")
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        member = tarfile.TarInfo("../out.txt")
        member.size = 1
        file.addfile(member, io.BytesIO(b"x"))
    for name in ("bad.zip", "bad.tar"):
        with pytest.raises(UsageError, match=name):
            unpack(tmp_path / name, tmp_path / "in")
    assert not (tmp_path / "out.txt").exists()
    (tmp_path / "cut.tar").write_bytes(b"not an archive")
    with pytest.raises(UsageError, match="cannot be extracted"):
        unpack(tmp_path / "cut.tar", tmp_path / "in")


class Beads(Task):
    name = "beads"
    primary_metric = "accuracy"

    def datasets(self) -> tuple[Dataset, ...]:
        return Dataset("glass", embedded=True), Dataset("wood", folder="timber", sources=(source("http://127.0.0.1:9/x"),))


def test_catalogue() -> None:
    entries = catalogue({"beads": Beads()})
    assert [entry.folder for entry in entries] == ["glass", "timber"]
    assert [entry.dataset.name for entry in choose(entries, [])] == ["wood"]
    with pytest.raises(UsageError, match="did you mean 'wood'"):
        choose(entries, ["woot"])
