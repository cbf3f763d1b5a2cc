"""OCD-Bench: does it help to give every test sample its own weights? A benchmark suite with task plugins.

:func:`run`, :func:`load` and :func:`compare` are the suite itself; the other names are what a plugin is made of. Importing them
imports no torch. docs/public-api.md lists the other public modules, and says how long a public name stays.

.. versionadded:: 0.1
"""

from ocd_bench._version import __version__
from ocd_bench.api import Run, compare, load, run
from ocd_bench.errors import DataMissing, NotApplicable, OCDBenchError, Unavailable, UsageError
from ocd_bench.layout import Layout
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.metrics import Metric
from ocd_bench.plugin import hookimpl
from ocd_bench.progress import Progress
from ocd_bench.samples import Samples, Splits
from ocd_bench.settings import setting
from ocd_bench.task import Dataset, Request, Source, Task

__all__ = [
    "Context",
    "DataMissing",
    "Dataset",
    "Layout",
    "Method",
    "Metric",
    "NotApplicable",
    "OCDBenchError",
    "Predictor",
    "Progress",
    "Request",
    "Run",
    "Samples",
    "Source",
    "Splits",
    "Task",
    "Unavailable",
    "UsageError",
    "__version__",
    "compare",
    "hookimpl",
    "load",
    "run",
    "setting",
]
