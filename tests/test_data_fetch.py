"""Fetching from a real HTTP server on this machine: resuming, verification, safe extraction."""

import contextlib
import hashlib
import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ocd_bench import Dataset, Source, Task, UsageError
from ocd_bench.data import fetch as fetching
from ocd_bench.data.archives import unpack
from ocd_bench.data.catalogue import catalogue, choose
from ocd_bench.data.fetch import fetch, state

CONTENT = bytes(range(256)) * 2000


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, with ranges for most paths. ``/breaks`` closes the first connection half way; others misbehave."""

    asked: list[str | None] = []
    broken = False

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        if self.path in ("/garbage", "/redirects", "/gone", "/endless", "/drips"):
            self.misbehave()
            return
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

    def misbehave(self) -> None:
        if self.path == "/garbage":
            self.wfile.write(b"\x1b[31mwhat?\r\n\r\n")
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(302 if self.path == "/redirects" else 200)
        self.send_header("Location", "http://[::bad")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            while self.path != "/redirects":
                self.wfile.write(CONTENT if self.path == "/endless" else b"x")
                self.wfile.flush()
                time.sleep(0.0 if self.path == "/endless" else 0.02)

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


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/garbage", "not an answer of a web server"),
        ("/redirects", "not an answer of a web server"),
        ("/gone", "the server answers 404"),
        ("/endless", f"sends more than the recorded {len(CONTENT)} bytes; the file was deleted"),
        ("/a b", "not an answer of a web server"),
    ],
)
def test_a_server_that_misbehaves_is_one_line_and_keeps_nothing(server: str, tmp_path: Path, path: str, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        fetch(tmp_path, source(f"{server}{path}"))
    assert text in str(raised.value)
    assert str(raised.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "nonsense", ""])
def test_only_addresses_of_the_web_are_opened(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="must begin with http"):
        fetch(tmp_path, source(url))
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_path_stays_in_the_folder(server: str, tmp_path: Path) -> None:
    outside = Source(f"{server}/x", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "../file.bin")
    with pytest.raises(UsageError, match="leads out of the dataset's folder"):
        fetch(tmp_path / "in", outside)
    assert not (tmp_path / "file.bin").exists()


def test_a_server_that_drips_is_cut_off_and_its_part_is_kept(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "time_limit", lambda size: 0.3)
    begin = time.monotonic()
    with pytest.raises(UsageError, match=r"slower than 20 kB/s.*the same command resumes it"):
        fetch(tmp_path, source(f"{server}/drips"))
    assert time.monotonic() - begin < 20
    assert 0 < (tmp_path / "file.bin.part").stat().st_size < 5000
    assert not list(tmp_path.glob(".*"))


def test_the_time_limit_allows_a_slow_line() -> None:
    assert fetching.time_limit(0) == 120
    assert fetching.time_limit(170_000_000) == pytest.approx(8620)


def test_one_process_downloads_and_the_others_wait(server: str, tmp_path: Path) -> None:
    found: list[bool] = []
    told: list[str] = []

    def work() -> None:
        found.append(fetch(tmp_path, source(f"{server}/x"), note=told.append))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 5 + [True]
    assert len(Handler.asked) == 1
    assert all("which downloads" in line for line in told)
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


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


def test_an_archive_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr("first.txt", "x")
        file.writestr(link, "/etc")
        file.writestr("link/inside.txt", "x")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", bytes(range(256)) * 20)
    for name, place, value in (("encrypted.zip", 6, 1), ("method.zip", 8, 99)):
        data = bytearray((tmp_path / "plain.zip").read_bytes())
        for header, shift in ((data.find(b"PK\x03\x04"), 0), (data.find(b"PK\x01\x02"), 2)):
            data[header + place + shift] = value
        (tmp_path / name).write_bytes(bytes(data))
    for name in ("link.zip", "encrypted.zip", "method.zip"):
        with pytest.raises(UsageError) as raised:
            unpack(tmp_path / name, tmp_path / "in")
        assert name in str(raised.value)
        assert not (tmp_path / "in").exists()
