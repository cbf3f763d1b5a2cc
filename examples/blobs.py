import torch

import ocd_bench


class Blobs(ocd_bench.Task):
    name, primary_metric = "blobs", "accuracy"
    presets = {"quick": {"base.epochs": 30, "base.lr": 1e-2, "base.batch_size": 32}}

    def load_data(self, request):
        random = request.generator("data")
        kind = torch.arange(360) % 3
        centre = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        points = centre[kind] + torch.randn(360, 2, generator=random)
        group = torch.arange(360)  # each point is independent of the others
        parts = (slice(0, 120), slice(120, 180), slice(180, 360))
        return ocd_bench.Splits(*((points[part], kind[part], group[part]) for part in parts))

    def base_model(self, splits, request):
        return torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

    def loss(self, output, target):
        return torch.nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output, target):
        return {"accuracy": (output.argmax(1) == target).float(), "cross_entropy": self.loss(output, target)}

    def logits(self, output):
        return output


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Blobs())
