import torch
from torch.nn.utils.rnn import pad_sequence

import ocd_bench

LENGTH = 12
INPUT = ocd_bench.Layout(steps=(LENGTH, 2), mask=torch.zeros(LENGTH, dtype=torch.bool), age=())
OUTPUT = ocd_bench.Layout(classes=(2,), length=())


class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.step, self.hidden = torch.nn.Linear(2, 16), torch.nn.Linear(17, 16)
        self.classes, self.length = torch.nn.Linear(16, 2), torch.nn.Linear(16, 1)

    def forward(self, packed):
        parts = INPUT.unpack(packed)
        mask = parts["mask"].unsqueeze(-1)  # (N, LENGTH, 1)
        steps = (self.step(parts["steps"]).relu() * mask).sum(1) / mask.sum(1)  # (N, 16), mean over real steps
        hidden = self.hidden(torch.cat([steps, parts["age"].unsqueeze(1)], 1)).relu()
        return OUTPUT.pack(classes=self.classes(hidden), length=self.length(hidden).squeeze(1))


class Sequences(ocd_bench.Task):
    name, primary_metric = "sequences", "accuracy"
    presets = {"quick": {"base.epochs": 10, "base.lr": 1e-2, "base.batch_size": 32}}

    def load_data(self, request):
        random = request.generator("data")
        lengths = torch.randint(3, LENGTH + 1, (400,), generator=random)
        walks = [torch.randn(int(length), 2, generator=random) for length in lengths]
        steps = torch.nn.functional.pad(pad_sequence(walks, batch_first=True), (0, 0, 0, LENGTH - int(lengths.max())))
        mask = torch.arange(LENGTH) < lengths.unsqueeze(1)
        inputs = INPUT.pack(steps=steps, mask=mask, age=torch.rand(400, generator=random))
        targets = torch.stack([torch.tensor([float(walk.sum() > 0) for walk in walks]), lengths / LENGTH], 1)
        return ocd_bench.Splits(*((inputs[part], targets[part]) for part in (slice(200), slice(200, 300), slice(300, 400))))

    def base_model(self, splits, request):
        return Reader()

    def loss(self, output, target):
        parts = OUTPUT.unpack(output)
        right = torch.nn.functional.cross_entropy(parts["classes"], target[:, 0].long(), reduction="none")
        return right + (parts["length"] - target[:, 1]).square()

    def metrics(self, output, target):
        parts = OUTPUT.unpack(output)
        return {"accuracy": (parts["classes"].argmax(1) == target[:, 0]).float(), "mae": (parts["length"] - target[:, 1]).abs()}

    def logits(self, output):
        return OUTPUT.unpack(output)["classes"]

    def ensemble(self, outputs):
        return outputs.mean(0)


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Sequences())
