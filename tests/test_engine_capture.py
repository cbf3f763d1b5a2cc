"""The target layer: per-sample weights in one batch equal a loop over changed copies of the model, for all kinds of models."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import LayerRefused, TargetLayer, candidates, refusal, unfold
from ocd_bench.engine.forms import Full, RankOne
from ocd_bench.engine.kept import KeptTraces, numbers
from ocd_bench.errors import UsageError

N = 4


class Residual(nn.Module):
    """BatchNorm, Dropout, a residual block, in-place activations, pooling, functions between modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.a = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.b = nn.Conv2d(4, 4, 3, padding="same")
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        x = self.stem(x)
        out = self.b(self.relu(self.norm(self.a(x))))
        out += x
        x = self.relu(out)
        return self.head(self.drop(F.avg_pool2d(x, x.shape[-1]).flatten(1)))


class InPlace(nn.Module):
    """Overwrites recorded tensors in place: before the layer, around it, and in discarded results. It has no gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.relu, self.mid, self.top = nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Linear(6, 2)
        self.flat = nn.Flatten()

    def forward(self, x):
        h = self.low(x)
        h *= 2.0
        self.relu(h)
        view = self.flat(h)
        z = self.mid(view)
        z.tanh_()
        h += z
        view -= 1.0
        return self.top(h) + h.sum(1, keepdim=True)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.inner, self.second = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 4), nn.LSTM(4, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        states, (last, _) = self.rnn(x)
        return self.head(self.second(torch.sigmoid(self.inner(states)))[0]) + last[0].sum(-1)[:, None, None]


class Folded(nn.Module):
    """Positions folded into the batch, sample-major, as patches and rays are."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.mid, self.top = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        rows = self.mid(torch.relu(self.low(x.reshape(-1, 2, 3))))
        return self.top(rows).reshape(len(x), -1, 2)


def encoder() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.3), nn.Flatten(), nn.Linear(40, 2))


def volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1), padding_mode="circular"), nn.Flatten(), nn.Linear(81, 2)
    )


def sounds() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 3, 4, stride=2, padding=1), nn.Tanh(), nn.Conv1d(3, 2, 1, bias=False), nn.Flatten())


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.GELU(), nn.Linear(6, 5)), nn.Dropout(), nn.Linear(5, 2))


CASES = [
    (perceptron, (4,), ["0", "1.1", "3"]),
    (Residual, (2, 5, 5), ["stem.0", "a", "b", "head"]),
    (InPlace, (5,), ["low", "mid", "top"]),
    (Recurrent, (6, 3), ["inner", "head"]),
    (Folded, (4, 3), ["low", "mid", "top"]),
    (encoder, (5, 8), ["0.self_attn.out_proj", "0.linear1", "0.linear2", "2"]),
    (volumes, (2, 3, 4, 3), ["0", "2"]),
    (sounds, (2, 9), ["0", "2"]),
    (lambda: nn.Linear(3, 2), (7, 3), [""]),
]
EVERY = [pytest.param(make, shape, name, id=f"{make.__name__}:{name}") for make, shape, names in CASES for name in names]


def setting(make, shape, name):
    torch.manual_seed(3)
    model = make().double()
    inputs = torch.randn(N, *shape, dtype=torch.float64)
    layer = TargetLayer(model, name)
    return model, inputs, layer, torch.randn(N, *layer.shape, dtype=torch.float64)


def one_by_one(model, name, inputs, change):
    """The oracle: a changed copy of the model for each sample."""
    outputs, weights = [], []
    for sample, delta in zip(inputs, change, strict=True):
        other = copy.deepcopy(model).eval().requires_grad_(False)
        module = other.get_submodule(name)
        module.weight = nn.Parameter(module.weight + delta.reshape(module.weight.shape))
        outputs.append(other(sample.clone().unsqueeze(0)))
        weights.append(module.weight)
    return torch.cat(outputs), weights


@pytest.mark.parametrize(("make", "shape", "name"), EVERY)
def test_forward_equals_changed_copies(make, shape, name):
    model, inputs, layer, change = setting(make, shape, name)
    kept = inputs.clone()
    trace = layer.trace(inputs)
    expected, weights = one_by_one(model, name, inputs, change)
    leaf = change.clone().requires_grad_()
    found = apply(trace, Full(leaf))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(apply(trace, Full(change)), expected)  # the trace serves more than once
    if make is not InPlace:
        toward = torch.randn_like(expected)
        (slope,) = torch.autograd.grad((found * toward).sum(), leaf)
        slopes = torch.autograd.grad((expected * toward).sum(), weights)
        torch.testing.assert_close(slope, torch.stack([each.flatten(1) for each in slopes]))
    assert torch.equal(inputs, kept)


@pytest.mark.parametrize(("make", "shape", "name"), EVERY)
def test_a_trace_has_the_input_and_output_of_the_layer(make, shape, name):
    model, inputs, layer, _ = setting(make, shape, name)
    trace = layer.trace(inputs)
    torch.testing.assert_close(trace.output, copy.deepcopy(model).eval()(inputs.clone()).detach())
    rows, columns = layer.shape
    assert trace.positions.shape[0] == trace.response.shape[0] == len(trace) == N
    assert trace.positions.shape[2] == columns
    assert trace.response.shape[2] == rows
    bias = 0 if layer.layer.bias is None else layer.layer.bias.detach()
    torch.testing.assert_close(trace.positions @ layer.weight.T + bias, trace.response)
    ((given, output),) = trace.calls
    torch.testing.assert_close(layer.as_rows(given, N), trace.positions)
    torch.testing.assert_close(layer.add(0 * output, trace.response), output)
    assert trace.single == (trace.positions.shape[1] == 1)
    assert not any(t.requires_grad for t in (trace.positions, trace.response, trace.output))
    assert refusal(model, name, inputs) is None


@pytest.mark.parametrize(("make", "shape", "name"), EVERY)
def test_zero_change_is_the_base(make, shape, name):
    _, inputs, layer, _ = setting(make, shape, name)
    trace = layer.trace(inputs)
    zero = RankOne(torch.zeros(N, layer.shape[0]).double(), torch.ones(N, layer.shape[1]).double())
    torch.testing.assert_close(apply(trace, zero), trace.output)


def test_candidates_are_the_layers_that_can_be_adapted():
    for make, shape, names in CASES:
        model, inputs, _, _ = setting(make, shape, names[0])
        assert candidates(model, inputs) == names


def count(module: nn.Module) -> list[int]:
    """Counts real computations of a module, below any hook or replay."""
    runs = [0]
    original = module.forward

    def forward(x):
        runs[0] += 1
        return original(x)

    module.forward = forward
    return runs


def test_modules_below_the_layer_are_not_computed_again():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 3)), nn.Linear(3, 3), nn.Linear(3, 2))
    layer = TargetLayer(model, "2")
    layer.trace(torch.randn(5, 3))  # the first one is tried out
    below, nested, above = count(model[0]), count(model[1][1]), count(model[3])
    trace = layer.trace(torch.randn(5, 3))
    assert (below, nested, above) == ([1], [1], [1])
    for _ in range(3):
        trace.replay(torch.zeros(5, 1, 3))
    assert (below, nested, above) == ([1], [1], [4])


class Functions(nn.Module):
    """Functions between modules, below the layer; ``kept`` is used above it again."""

    def __init__(self, below) -> None:
        super().__init__()
        self.low, self.layer, self.below = nn.Linear(3, 4), nn.Linear(4, 4), below

    def forward(self, x):
        kept, *others = (self.below(self.low(x)) + 1).split(2, 1)
        mixed = torch.cat([*others, F.relu(kept)], 1)
        return self.layer(mixed[:, : mixed.shape[1]]).tanh() * kept.sum(1, keepdim=True)


class Double(torch.autograd.Function):
    """Invisible to torch functions."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


@pytest.mark.parametrize("below", [torch.sin, Double.apply], ids=["function", "autograd-function"])
def test_functions_below_the_layer_are_not_computed_again_where_torch_sees_them(below):
    torch.manual_seed(0)
    model, inputs, change = Functions(below).double(), torch.randn(N, 3).double(), torch.randn(N, 4, 4).double()
    layer = TargetLayer(model, "layer")
    trace = layer.trace(inputs)
    torch.testing.assert_close(apply(trace, Full(change)), one_by_one(model, "layer", inputs, change)[0])
    if below is torch.sin:
        with CountOperations() as counter:
            trace.replay(torch.zeros_like(trace.response))
        assert "aten::sin" not in counter.called
        assert "aten::tanh" in counter.called


class CountOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.called = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called.add(func._schema.name)
        return func(*args, **(kwargs or {}))


class Reused(nn.Module):
    """One module called below the layer, inside another and twice by itself, and above it."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.layer = nn.Linear(3, 3), nn.Linear(3, 3)
        self.block = nn.Sequential(nn.Tanh(), self.shared)

    def forward(self, x):
        return self.shared(torch.tanh(self.layer(self.shared(torch.relu(self.shared(self.block(x)))))))


def test_what_only_modules_below_the_layer_use_is_not_kept():
    model = nn.Sequential(nn.Linear(3, 1000), nn.Linear(1000, 1000), nn.Linear(1000, 2), nn.Linear(2, 2))
    assert numbers(TargetLayer(model, "2").trace(torch.randn(5, 3))) <= 5 * (3 + 1000 + 1000 + 1000 + 3 * 2)


@pytest.mark.parametrize("name", ["1", "3"])
def test_a_kept_trace_has_no_outputs_of_the_layer_and_is_the_same_when_it_is_used(name: str):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Tanh(), nn.Conv1d(1, 50, 3), nn.Flatten(), nn.Linear(50 * 8, 30), nn.Tanh(), nn.Linear(30, 2))
    layer, x = TargetLayer(model, name), torch.randn(1, 1, 10)
    made = layer.trace(x)
    traces, answers = KeptTraces(), torch.zeros(1)
    assert traces.get(4, lambda: (made, answers))[0] is made
    assert len(traces) == 1
    found, targets = traces.get(4, lambda: pytest.fail("made again"))
    assert targets is answers
    whole = layer.trace(x)
    assert torch.equal(found.positions, whole.positions)
    assert torch.equal(found.response, whole.response)
    shift = torch.randn(whole.response.shape)
    assert torch.equal(found.replay(shift), whole.replay(shift))
    assert numbers(traces._known[4].trace) == numbers(found) - whole.response.numel()


def test_a_module_used_below_and_above():
    torch.manual_seed(0)
    model, inputs = Reused().double(), torch.randn(N, 3).double()
    change = torch.randn(N, 3, 3).double()
    layer = TargetLayer(model, "layer")
    layer.trace(inputs)  # the first one is tried out
    runs = count(model.shared)
    trace = layer.trace(inputs)
    found = apply(trace, Full(change))
    assert runs == [5]
    del model.shared.forward
    torch.testing.assert_close(found, one_by_one(model, "layer", inputs, change)[0])
    assert candidates(model, inputs) == ["layer"]


def test_no_gradient_below_the_layer():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
    layer = TargetLayer(model, "2")
    inputs = torch.randn(N, 3, requires_grad=True)
    trace = layer.trace(inputs)
    u = torch.randn(N, 4, requires_grad=True)
    apply(trace, RankOne(u, trace.positions[:, 0])).sum().backward()
    assert u.grad is not None
    assert inputs.grad is None
    assert all(p.grad is None for p in [*model[0].parameters(), *model[1].parameters(), *model[2].parameters()])
    assert all(p.grad is not None for p in model[3].parameters())
    with torch.no_grad():
        assert not apply(trace, RankOne(u, trace.positions[:, 0])).requires_grad


class Offset(nn.Module):
    """A parameter of the model's own below the layer, and a way around the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.layer = nn.Parameter(torch.ones(3)), nn.Linear(3, 3)

    def forward(self, x):
        x = x + self.offset
        return self.layer(x) + x


def test_no_gradient_around_the_layer():
    model = Offset()
    layer = TargetLayer(model, "layer")
    trace = layer.trace(torch.randn(N, 3))
    shift = torch.zeros(N, 1, 3, requires_grad=True)
    trace.replay(shift).sum().backward()
    assert torch.equal(shift.grad, torch.ones(N, 1, 3))
    assert model.offset.grad is None


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop, self.armed = nn.Linear(2, 2), nn.Dropout(), False

    def forward(self, x):
        x = self.drop(self.layer(x))
        if self.armed:
            raise RuntimeError("on purpose")
        return x


def test_the_model_is_unchanged_afterwards():
    model = Fails()
    model.train()
    model.layer.eval()
    layer = TargetLayer(model, "layer")
    trace = layer.trace(torch.randn(2, 2))
    model.armed = True
    with torch.enable_grad():
        for call in (lambda: layer.trace(trace.inputs), lambda: trace.replay(torch.zeros(2, 1, 2))):
            with pytest.raises(RuntimeError, match="on purpose"):
                call()
            assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
    assert [module.training for module in model.modules()] == [True, False, True]
    assert not any("forward" in vars(module) for module in model.modules())


def test_hooks_and_patched_forwards_of_the_model_are_kept():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    seen = []
    model[0].register_forward_hook(lambda module, given, value: seen.append(1) or value * 3)
    runs = count(model[0])
    own = model[0].forward
    layer = TargetLayer(model, "1")
    layer.trace(torch.randn(2, 2))  # the first one is tried out
    seen.clear()
    runs[0] = 0
    trace = layer.trace(torch.randn(2, 2))
    torch.testing.assert_close(trace.replay(torch.zeros(2, 1, 2)), trace.output)
    assert len(seen) == 2
    assert runs == [1]
    assert model[0].forward is own


def test_inside_inference_mode():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    layer = TargetLayer(model, "0")
    with torch.inference_mode():
        trace = layer.trace(torch.randn(2, 3))
        trace.replay(torch.zeros(2, 1, 3))
    shift = torch.zeros(2, 1, 3, requires_grad=True)
    trace.replay(shift).sum().backward()
    assert shift.grad is not None


class PositionMajor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class FoldedPositionMajor(PositionMajor):
    def forward(self, x):
        rows = self.layer(x.transpose(0, 1).reshape(-1, 2))
        return rows.reshape(x.shape[1], x.shape[0], 2).transpose(0, 1)


class Mixes(PositionMajor):
    def forward(self, x):
        return self.layer(x - x.mean(0))


class MixesAbove(PositionMajor):
    def forward(self, x):
        return self.layer(x).softmax(0)


class Detached(PositionMajor):
    def forward(self, x):
        return self.layer(x).detach() * 2


class Own(nn.Linear):
    def forward(self, input):
        return super().forward(input) * 2


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(2, 2), nn.Linear(2, 2, bias=False)
        self.layer.weight = self.embedding.weight

    def forward(self, x):
        return self.layer(x)


class Twice(PositionMajor):
    def forward(self, x):
        return self.layer(self.layer(x))


class Unused(PositionMajor):
    def forward(self, x):
        return x * 2


class Alone(PositionMajor):
    def forward(self, x):
        return torch.stack([self.layer(x.flatten())]).expand(len(x), 2)


class Wrapped(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("make", "shape", "reason"),
    [
        (PositionMajor, (5, 2), "first size must be a multiple"),
        (PositionMajor, (6, 2), "do not belong to one sample"),
        (FoldedPositionMajor, (2, 2), "do not belong to one sample"),
        (FoldedPositionMajor, (3, 2), "do not belong to one sample"),
        (Mixes, (2,), "do not belong to one sample"),
        (MixesAbove, (2,), "the model's output has rows that do not belong"),
        (Detached, (2,), "no gradient reaches"),
        (lambda: Wrapped(Own(2, 2)), (2,), "forward of its own"),
        (Tied, (2,), "shares its weight with 'embedding'"),
        (Unused, (2,), "does not run"),
        (lambda: Wrapped(nn.Conv1d(2, 4, 1, groups=2)), (2, 4), "in 2 groups"),
        (lambda: Wrapped(nn.ReLU()), (2,), "a ReLU, not a Linear or Conv"),
        (Alone, (), "is given one input of shape"),
    ],
)
def test_refusals_say_why(make, shape, reason):
    torch.manual_seed(1)
    model, inputs = make(), torch.randn(6, *(shape or (1,)))
    if make is Alone:
        model.layer = nn.Linear(3, 2)  # the first three samples are tried
    text = refusal(model, "layer", inputs)
    assert text is not None
    assert reason in text
    assert "layer" not in candidates(model, inputs)


def test_layers_are_examined_in_full_float32():
    """With TF32, rows of one sample differ by more than the check allows when the batch changes."""
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(x)

    before = torch.backends.cudnn.allow_tf32
    assert refusal(nn.Sequential(Watched(3, 4), nn.ReLU(), nn.Linear(4, 2)), "2", torch.randn(3, 3)) is None
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32 == before


def test_an_unknown_layer_is_refused_with_similar_names():
    with pytest.raises(LayerRefused, match=r"layer 'stem.1' is a BatchNorm2d, not .*; nearest: stem.0"):
        TargetLayer(Residual(), "stem.1")
    with pytest.raises(LayerRefused, match=r"'haed' is not in the model; nearest: head"):
        TargetLayer(Residual(), "haed")
    with pytest.raises(LayerRefused, match="no such layer"):
        TargetLayer(nn.Sequential(nn.ReLU()), "0")
    assert issubclass(LayerRefused, UsageError)
    assert issubclass(LayerRefused, ValueError)


def test_a_change_of_another_size_is_refused():
    model = nn.Sequential(nn.Linear(3, 2))
    layer = TargetLayer(model, "0")
    trace = layer.trace(torch.randn(4, 3))
    for delta in (Full(torch.zeros(3, 2, 3)), Full(torch.zeros(4, 3, 2))):
        with pytest.raises(ValueError, match=r"does not fit positions \(4, 1, 3\)"):
            apply(trace, delta)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        (nn.Conv1d, (7,), {"kernel_size": 3, "stride": 2}),
        (nn.Conv2d, (6, 7), {"kernel_size": (2, 3), "padding": (1, 2), "stride": (2, 1)}),
        (nn.Conv2d, (7, 7), {"kernel_size": 3, "dilation": 2, "padding": 1, "padding_mode": "reflect"}),
        (nn.Conv2d, (5, 6), {"kernel_size": (4, 2), "padding": "same", "dilation": (1, 2)}),
        (nn.Conv2d, (5, 6), {"kernel_size": 3, "padding": "same", "padding_mode": "replicate"}),
        (nn.Conv2d, (5, 5), {"kernel_size": 3, "padding": "valid"}),
        (nn.Conv3d, (4, 5, 6), {"kernel_size": (2, 3, 1), "padding": (1, 0, 2), "dilation": (2, 1, 1)}),
    ],
)
def test_unfold_is_the_convolution(kind, size, options):
    torch.manual_seed(0)
    layer = kind(3, 4, **options).double()
    inputs = torch.randn(2, 3, *size).double()
    found = unfold(layer, inputs) @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(found, layer(inputs).movedim(1, -1))


def test_what_was_recorded_is_freed_with_its_trace():
    """At once: in a reference cycle it would wait for the next garbage collection, which can be gigabytes later."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Sigmoid())
    layer = TargetLayer(model, "2")
    layer.trace(torch.ones(2, 3))  # the first one imports and tries things out
    gc.collect()
    gc.disable()
    try:
        trace = layer.trace(torch.ones(2, 3))
        ((given, output),) = trace.calls
        recorded = weakref.ref(given), weakref.ref(output)
        del trace, given, output
        assert [one() for one in recorded] == [None, None]
    finally:
        gc.enable()
