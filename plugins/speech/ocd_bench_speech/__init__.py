"""Speech separation for OCD-Bench: one microphone, two to five speakers, 8 kHz."""

from collections.abc import Callable

from ocd_bench import Task, hookimpl
from ocd_bench_speech.task import SpeechTask


@hookimpl
def ocd_bench_register_tasks(register: Callable[[Task], None]) -> None:
    register(SpeechTask())
