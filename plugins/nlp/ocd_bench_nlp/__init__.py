"""The ``nlp`` task of OCD-Bench: few-shot text classification. Importing this module imports neither torch nor an encoder."""

from collections.abc import Callable

import ocd_bench
from ocd_bench_nlp.task import FewShotText


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register: Callable[[ocd_bench.Task], None]) -> None:
    """Register the task."""
    register(FewShotText())
