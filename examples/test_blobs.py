from blobs import Blobs
from ocd_bench.testing import TaskConformance


class TestBlobs(TaskConformance):
    task = Blobs()
