"""Messages between the processes of a run: plain values and named bytes, and how they are written to a pipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """A message: its kind, plain values, and named bytes."""

    what: str
    values: Mapping[str, Any] = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)


Send = Callable[[Message], None]


def encode(message: Message) -> bytes:
    """A message as bytes. They begin with their own length, so messages can follow one another."""
    sizes = {name: len(blob) for name, blob in message.blobs.items()}
    head = json.dumps({"what": message.what, "values": message.values, "blobs": sizes}).encode()
    body = len(head).to_bytes(8, "little") + head + b"".join(message.blobs.values())
    return len(body).to_bytes(8, "little") + body


class Decoder:
    """Turns bytes, which arrive in pieces of any length, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self._buffer += data

    def messages(self) -> Iterator[Message]:
        """The messages that are complete."""
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[:8], "little")
            if len(self._buffer) < 8 + size:
                return
            frame = bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            yield _decoded(frame)


def _decoded(frame: bytes) -> Message:
    size = int.from_bytes(frame[:8], "little")
    head = json.loads(frame[8 : 8 + size])
    blobs, start = {}, 8 + size
    for name, length in head["blobs"].items():
        blobs[name] = frame[start : start + length]
        start += length
    return Message(head["what"], head["values"], blobs)
