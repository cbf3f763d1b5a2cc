import torch
from blobs import Blobs

import ocd_bench


class DriftingBlobs(Blobs):
    name = "drifting-blobs"
    corruptions = ("drift", "noise")

    def corrupt(self, inputs, kind, severity, generator):
        if kind == "drift":
            return inputs + 0.2 * severity
        return inputs + 0.2 * severity * torch.randn(inputs.shape, generator=generator)


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(DriftingBlobs())
