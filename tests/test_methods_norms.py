"""Group norms of channels-last tensors, in a process of its own: what went wrong there ended the process."""

import subprocess
import sys

import pytest

CODE = """
import torch
from torch import nn
from ocd_bench import Splits
from tests.toy import ToyClasses, make_context
from ocd_bench.methods.{module} import {name}

class Pictures(ToyClasses):
    def load_data(self, request):
        inputs = torch.rand(32, 2, 8, 8, generator=request.generator("data")).to(memory_format=torch.channels_last)
        return Splits(*[(inputs, torch.arange(32) % 3)] * 3)

torch.manual_seed(0)
base = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 3))
context = make_context(Pictures(), base=base, layer="4", settings={{"{section}": {settings}}})
inputs = context.val.inputs
assert inputs.is_contiguous(memory_format=torch.channels_last)
predictor = {name}().fit(context)
before = predictor.weights[0].detach().clone()
for _ in range(2):
    output = predictor(inputs)
print(bool(output.isfinite().all()), bool((predictor.weights[0] != before).any()))
"""


@pytest.mark.parametrize(
    ("module", "name", "settings"), [("tent", "TentNorm", "None"), ("sar", "Sar", "SarSettings(margin=1.0, lr=0.1)")]
)
def test_channels_last_inputs_of_a_group_norm_do_not_end_the_process(module: str, name: str, settings: str) -> None:
    code = CODE.format(module=module, name=name, section=module, settings=settings)
    code = code.replace('settings={"tent": None}', "settings=None").replace("import Sar\n", "import Sar, SarSettings\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True True"), done.stderr
