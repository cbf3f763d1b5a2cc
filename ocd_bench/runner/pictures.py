"""The task's own pictures of a group's test samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ocd_bench.runner.blame import message_of
from ocd_bench.runner.job import Job
from ocd_bench.runner.sandbox import Message, Send, run_child
from ocd_bench.samples import Splits


def draw_figures(job: Job, splits: Splits, outputs: Mapping[str, torch.Tensor]) -> None:
    """Write the pictures into the run folder. An error here does not affect the numbers.

    Args:
        splits: with the test samples.
        outputs: of each method, on the test samples.
    """
    job.doing("figures")
    folder = job.folder.path / "figures" / job.name

    def draw(send: Send) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written = job.task.figures(splits, outputs, job.request, folder)
            if not written:
                folder.rmdir()
                if not any(folder.parent.iterdir()):
                    folder.parent.rmdir()
        except (Exception, SystemExit, GeneratorExit) as error:
            where = job.blame.of_error(error, job.task)
            text = f"figures of task {job.task.name!r} left out: {message_of(error)} ({where})"
            send(Message("note", {"text": text}))

    if not job.run.isolate:
        draw(job.send)
        return
    ending = run_child(draw, lambda child, message: job.send(message), job.run.cell_timeout)
    if ending.how != "returned":
        where = job.blame.of_trace(ending.trace, job.task)
        job.note(f"figures of task {job.task.name!r} left out: {ending} ({where})")
