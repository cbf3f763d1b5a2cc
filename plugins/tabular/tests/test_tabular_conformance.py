"""The task passes the conformance kit for third-party authors."""

from __future__ import annotations

from ocd_bench.testing import TaskConformance
from ocd_bench_tabular import Tabular


class TestRegression(TaskConformance):
    task = Tabular()


class TestClassification(TaskConformance):
    task = Tabular()
    dataset = "wine"
    overrides = {"tabular.model": "resnet", "tabular.encoder": "periodic"}
