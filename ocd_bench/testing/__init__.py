"""The conformance kit for authors of tasks and methods; ``ocd-bench plugin check`` runs the same checks.

As pytest tests, one per check::

    from ocd_bench.testing import TaskConformance

    class TestWine(TaskConformance):
        task = Wine()

or as functions: :func:`check_task` and :func:`check_method` return results, :func:`assert_conforms` raises an error. Messages
say what to change. A task is checked on its default dataset under the preset ``quick``, a method on two small tasks of this
package. For your own tests, :func:`request` makes a request, and :func:`ocd_bench.testing.toy.toy_context` a context.

.. versionadded:: 0.1
"""

from ocd_bench.testing.conformance import MethodConformance, TaskConformance, assert_conforms
from ocd_bench.testing.method_checks import check_method
from ocd_bench.testing.result import CheckResult
from ocd_bench.testing.task_checks import check_task
from ocd_bench.testing.trial import request

__all__ = ["CheckResult", "MethodConformance", "TaskConformance", "assert_conforms", "check_method", "check_task", "request"]
