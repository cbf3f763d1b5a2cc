"""Receives from ray in a thread of its own.

A signal such as Ctrl-C is delivered to the main thread. If it waited inside ray, the signal would be answered late, and an
exception other than ``KeyboardInterrupt`` not at all. So the main thread waits for a queue.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

TURN = 0.1
"""Seconds until a new stream is listened to, at most."""


class Receiver:
    """Listens to streams of parcels.

    Args:
        ray: the module, connected.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._new: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._arrived: queue.SimpleQueue[tuple[Any, bytes | Exception | None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="ray-receiver", daemon=True)
        self._thread.start()

    def listen(self, stream: Any) -> None:
        """Listen to a further stream."""
        self._new.put(stream)

    def arrived(self, seconds: float) -> list[tuple[Any, bytes | Exception | None]]:
        """What has arrived: stream and parcel, or the error that ended the stream, or None at its end. Waits for the first
        thing, but not longer than ``seconds``."""
        found = []
        try:
            found.append(self._arrived.get(timeout=seconds))
            while True:
                found.append(self._arrived.get_nowait())
        except queue.Empty:
            return found

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join(10 * TURN)

    def _receive(self) -> None:
        streams: list[Any] = []
        while not self._stop.is_set():
            while not self._new.empty():
                streams.append(self._new.get())
            if not streams:
                self._stop.wait(TURN)
                continue
            ready, _ = self._ray.wait(streams, num_returns=1, timeout=TURN)
            if ready:  # all that are ready take part before any of them is asked again
                ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
            for stream in ready:
                parcel = self._next(stream)
                self._arrived.put((stream, parcel))
                if not isinstance(parcel, bytes):
                    streams.remove(stream)

    def _next(self, stream: Any) -> bytes | Exception | None:
        try:
            return self._ray.get(next(stream))
        except StopIteration:
            return None
        except Exception as error:
            return error
