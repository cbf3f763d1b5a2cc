"""The ``images`` task of OCD-Bench: image classification. Importing this module imports neither torch nor Pillow."""

from collections.abc import Callable

import ocd_bench
from ocd_bench_images.task import Images


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register: Callable[[ocd_bench.Task], None]) -> None:
    """Register the task."""
    register(Images())
