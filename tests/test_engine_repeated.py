"""Layers that run several times, and weights inside attention and recurrent modules, beside changed copies of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import LayerRefused, TargetLayer, adaptable_names, candidates, refusal
from ocd_bench.engine.forms import FORMS, Full
from ocd_bench.engine.overfit import Overfit, overfit
from ocd_bench.engine.selection import layer_entropy
from ocd_bench.engine.several import in_order

N = 4


class Around(nn.Module):
    """A Linear layer, something on ``(N, T, 6)``, and the mean over T to three classes."""

    def __init__(self, inner: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], width: int = 6) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(3, 6), inner, nn.Linear(width, 3)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self.inner, torch.relu(self.first(x))).mean(1))


def looped(inner: nn.Module, x: Tensor) -> Tensor:
    for _ in range(3):
        x = torch.tanh(inner(x))
    return x


def both_sides(inner: nn.Module, x: Tensor) -> Tensor:
    return inner(x[:, :2]) * inner(x[:, 2:4])


def convolved(inner: nn.Module, x: Tensor) -> Tensor:
    x = x.transpose(1, 2)
    return (torch.relu(inner(x)) + inner(torch.sin(x))).transpose(1, 2)


def outputs(inner: nn.Module, x: Tensor) -> Tensor:
    return inner(x)[0]


def time_first(inner: nn.Module, x: Tensor) -> Tensor:
    found, last = inner(x.transpose(0, 1))
    state = last[0] if isinstance(last, tuple) else last
    return found.transpose(0, 1) + state.sum((0, 2))[:, None, None]


def from_a_state(inner: nn.Module, x: Tensor) -> Tensor:
    start = x.mean((1, 2))[None, :, None]
    return inner(x, (start.repeat(4, 1, 4), start.repeat(4, 1, 5)))[0]


def stepped(inner: nn.Module, x: Tensor) -> Tensor:
    state, found = None, []
    for step in x.unbind(1):
        state = inner(step, state)
        found.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(found, 1)


def attended(inner: nn.Module, x: Tensor) -> Tensor:
    hidden = x[..., 0] < x[..., 0].median(1, keepdim=True).values
    return inner(x, x, x, key_padding_mask=hidden, attn_mask=torch.eye(x.shape[1], dtype=torch.bool))[0]


def crossed(inner: nn.Module, x: Tensor) -> Tensor:
    keys = x.transpose(0, 1)
    return inner(keys[:2], keys, torch.sin(keys))[0].transpose(0, 1)


def crossed_sizes(inner: nn.Module, x: Tensor) -> Tensor:
    return inner(x, x[..., :4], x[..., :2], need_weights=False)[0]


def causal(inner: nn.Module, x: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
    return inner(x.transpose(0, 1), src_mask=mask, is_causal=True).transpose(0, 1)


def attention(**options: object) -> Callable[[], nn.Module]:
    return lambda: nn.MultiheadAttention(6, 2, **options)  # type: ignore[arg-type]


CASES = [
    ("linear", lambda: nn.Linear(6, 6), looped, 6, [""]),
    ("siamese", lambda: nn.Linear(6, 6), both_sides, 6, [""]),
    ("conv", lambda: nn.Conv1d(6, 6, 3, padding=1), convolved, 6, [""]),
    ("attention", attention(batch_first=True), attended, 6, ["in_proj_weight", "out_proj"]),
    ("cross", attention(bias=False, add_bias_kv=True, add_zero_attn=True), crossed, 6, ["in_proj_weight", "out_proj"]),
    (
        "sizes",
        attention(kdim=4, vdim=2, batch_first=True),
        crossed_sizes,
        6,
        ["q_proj_weight", "k_proj_weight", "v_proj_weight"],
    ),
    ("transformer", lambda: nn.TransformerEncoderLayer(6, 2, 8), causal, 6, ["self_attn.in_proj_weight", "self_attn.out_proj"]),
    (
        "lstm",
        lambda: nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, proj_size=4),
        from_a_state,
        8,
        ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0", "weight_ih_l1", "weight_hh_l1_reverse"],
    ),
    ("gru", lambda: nn.GRU(6, 5, 2), time_first, 5, ["weight_ih_l0", "weight_hh_l0", "weight_hh_l1"]),
    ("rnn", lambda: nn.RNN(6, 5, bias=False, nonlinearity="relu"), time_first, 5, ["weight_ih_l0", "weight_hh_l0"]),
    ("lstm-cell", lambda: nn.LSTMCell(6, 5), stepped, 5, ["weight_ih", "weight_hh"]),
    ("gru-cell", lambda: nn.GRUCell(6, 5), stepped, 5, ["weight_ih", "weight_hh"]),
    ("rnn-cell", lambda: nn.RNNCell(6, 5), stepped, 5, ["weight_ih", "weight_hh"]),
]
every = pytest.mark.parametrize(
    ("make", "run", "width", "name"),
    [
        pytest.param(make, run, width, f"inner.{name}".removesuffix("."), id=f"{case}:{name}")
        for case, make, run, width, names in CASES
        for name in names
    ],
)


def setting(make: Callable[[], nn.Module], run: Callable[[nn.Module, Tensor], Tensor], width: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(7)
    model = Around(make(), run, width).double()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.6, 0.6)  # biases of attention start at zero
    return model, torch.randn(N, 5, 3, dtype=torch.float64)


def loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def weight_of(model: nn.Module, name: str) -> nn.Parameter:
    named = dict(model.named_parameters())
    return named[name] if name in named else named[f"{name}.weight"]


def one_by_one(model: nn.Module, name: str, inputs: Tensor, change: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The oracle: for each sample a copy of the model, with its modules fused, and the changed weight in it."""
    found, weights = [], []
    for sample, delta in zip(inputs, change, strict=True):
        other = copy.deepcopy(model).eval()
        weight = weight_of(other, name)
        with torch.no_grad():
            weight += delta.reshape(weight.shape)
        found.append(other(sample.unsqueeze(0)))
        weights.append(weight)
    return torch.cat(found), weights


@every
def test_the_change_acts_in_every_call(make, run, width, name):
    model, inputs = setting(make, run, width)
    layer = TargetLayer(model, name)
    trace = layer.trace(inputs)
    with torch.no_grad():
        torch.testing.assert_close(trace.output, copy.deepcopy(model).eval()(inputs))
    change = torch.randn(N, *layer.shape, dtype=torch.float64).requires_grad_()
    expected, weights = one_by_one(model, name, inputs, change.detach())
    found = apply(trace, Full(change))
    torch.testing.assert_close(found, expected)
    toward = torch.randn_like(expected)
    (slope,) = torch.autograd.grad((found * toward).sum(), change)
    slopes = torch.autograd.grad((expected * toward).sum(), weights)
    torch.testing.assert_close(slope, torch.stack([each.flatten(1) for each in slopes]))
    torch.testing.assert_close(apply(trace, Full(change)), expected)  # the trace serves more than once
    assert refusal(model, name, inputs) is None


@pytest.mark.parametrize("how", [Overfit("sgd", 0.3, 3), Overfit("adam", 0.02, 3)], ids=lambda how: how.optimizer)
@every
def test_overfit_equals_the_loop(make, run, width, name, how):
    model, inputs = setting(make, run, width)
    targets = torch.arange(N) % 3
    layer = TargetLayer(model, name)
    delta = overfit(layer, layer.trace(inputs), targets, loss, how)
    for sample, answer, own in zip(inputs, targets, delta.matrix(), strict=True):
        other = copy.deepcopy(model).eval().requires_grad_(False)
        weight = weight_of(other, name).requires_grad_()
        before = weight.detach().clone()
        optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[how.optimizer]([weight], lr=how.lr)
        for _ in range(how.steps):
            optimizer.zero_grad()
            F.cross_entropy(other(sample.unsqueeze(0)), answer.unsqueeze(0)).backward()
            optimizer.step()
        torch.testing.assert_close(own, (weight.detach() - before).flatten(1), rtol=1e-7, atol=1e-10)


@every
def test_positions_are_those_of_all_calls(make, run, width, name):
    model, inputs = setting(make, run, width)
    layer = TargetLayer(model, name)
    trace = layer.trace(inputs)
    bias = 0 if layer.layer.bias is None else layer.layer.bias.detach()
    torch.testing.assert_close(trace.positions @ layer.weight.T + bias, trace.response)
    assert trace.positions.shape[0] == N
    assert trace.repeated == (len(trace.calls) > 1)
    if trace.repeated:
        with pytest.raises(ValueError, match=f"in {len(trace.calls)} calls"):
            trace.replay(torch.zeros_like(trace.response))


def test_every_form_that_fits_can_be_used_where_a_layer_runs_several_times():
    model, inputs = setting(lambda: nn.GRU(6, 5), time_first, 5)
    layer = TargetLayer(model, "inner.weight_hh_l0")
    trace = layer.trace(inputs)
    delta = overfit(layer, trace, torch.arange(N) % 3, loss, Overfit("sgd", 0.3))
    used = []
    for name, kind in FORMS.items():
        form = kind.fit(delta, 3) if kind.fitted else kind.of(layer.shape, 3)
        if form.refusal(trace) is None:
            used.append(name)
            again = form.decode(form.encode(delta, trace), trace)
            torch.testing.assert_close(apply(trace, again), apply(trace, Full(again.matrix())))
    assert {"full", "basis", "learned", "input-basis"} <= set(used)
    assert "rank-one" not in used


def test_what_lies_below_the_first_call_is_not_computed_again():
    model, inputs = setting(lambda: nn.Linear(6, 6), looped, 6)
    trace = TargetLayer(model, "inner").trace(inputs)
    runs = [0]
    compute = model.first.forward

    def forward(x: Tensor) -> Tensor:
        runs[0] += 1
        return compute(x)

    model.first.forward = forward
    apply(trace, Full(torch.zeros(N, 6, 6, dtype=torch.float64)))
    assert runs == [0]


def test_layers_that_nobody_names_are_whole_modules_that_run_once():
    model, inputs = setting(lambda: nn.LSTM(6, 5, batch_first=True), outputs, 5)
    assert candidates(model, inputs) == ["first", "head"]
    assert adaptable_names(model) == ["first", "head", "inner.weight_ih_l0", "inner.weight_hh_l0"]

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x)[0][:, -1]

    assert candidates(Alone().double(), inputs) == ["gru.weight_ih_l0", "gru.weight_hh_l0"]


def test_the_entropy_of_a_layer_that_runs_several_times():
    model, inputs = setting(lambda: nn.Linear(6, 6), looped, 6)
    names = ["first", "inner", "head"]
    scores = layer_entropy(
        model,
        inputs,
        torch.arange(N) % 3,
        loss,
        names,
        0.1,
        8,
        torch.Generator().manual_seed(0),
    )
    assert list(scores) == names


def test_layers_are_taken_in_the_order_in_which_they_first_run():
    model, inputs = setting(lambda: nn.LSTM(6, 5, batch_first=True), outputs, 5)
    names = ["head", "inner.weight_hh_l0", "first", "inner.weight_ih_l0"]
    assert in_order(model, names, inputs) == ["first", "inner.weight_ih_l0", "inner.weight_hh_l0", "head"]


class ByHand(nn.Module):
    """Uses a weight in the layer, and once more by itself."""

    def __init__(self, inner: nn.Module, weight: str) -> None:
        super().__init__()
        self.inner, self.weight = inner, weight

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner(x)
        found = found[0] if isinstance(found, tuple) else found
        return found.mean(1) + (x @ getattr(self.inner, self.weight).T).mean((1, 2))[:, None]


@pytest.mark.parametrize(
    ("inner", "name", "weight"),
    [
        (lambda: nn.Linear(3, 4), "inner", "weight"),
        (lambda: nn.GRU(3, 4, batch_first=True), "inner.weight_ih_l0", "weight_ih_l0"),
    ],
)
def test_a_weight_that_is_also_used_elsewhere_is_refused(inner, name, weight):
    torch.manual_seed(0)
    model, inputs = ByHand(inner(), weight), torch.randn(N, 5, 3)
    text = refusal(model, name, inputs)
    assert text is not None
    assert "has a weight that the model also uses outside of the layer" in text


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loop, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = checkpoint(lambda x: torch.tanh(self.loop(x)), x, use_reentrant=False)
        return self.head(x)


def test_a_gradient_that_cannot_go_back_is_a_refusal():
    torch.manual_seed(0)
    text = refusal(Checkpointed(), "loop", torch.randn(N, 3))
    assert text is not None
    assert "no gradient goes back to it (CheckpointError" in text


def packed(inner: nn.Module, x: Tensor) -> Tensor:
    rows = nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), 5), batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(inner(rows)[0], batch_first=True)[0]


class Scaled(nn.GRU):
    def forward(self, *args, **kwargs):
        found, last = super().forward(*args, **kwargs)
        return 2 * found, last


@pytest.mark.parametrize(
    ("make", "run", "name", "reason"),
    [
        (lambda: nn.GRU(6, 5, batch_first=True), packed, "inner.weight_hh_l0", "is given a packed sequence"),
        (
            lambda: nn.GRU(6, 5),
            lambda inner, x: torch.stack([inner(own)[0] for own in x]),
            "inner.weight_hh_l0",
            r"is given one sequence of shape \(5, 6\)",
        ),
        (
            lambda: nn.GRUCell(6, 5),
            lambda inner, x: torch.stack([inner(own[0]) for own in x])[:, None],
            "inner.weight_ih",
            r"on one vector of shape \(6,\)",
        ),
        (
            attention(batch_first=True),
            lambda inner, x: torch.stack([inner(own, own, own)[0] for own in x]),
            "inner.in_proj_weight",
            r"on one sequence of shape \(5, 6\)",
        ),
        (lambda: Scaled(6, 5, batch_first=True), outputs, "inner.weight_hh_l0", "is not in the model"),
        (
            lambda: nn.utils.parametrizations.weight_norm(nn.GRU(6, 5, batch_first=True), "weight_hh_l0"),
            outputs,
            "inner.weight_hh_l0",
            "is not in the model",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused_with_the_reason(make, run, name, reason):
    model, inputs = setting(make, run, 6 if name.endswith("in_proj_weight") else 5)
    assert model(inputs).shape == (N, 3)
    with pytest.raises(LayerRefused, match=reason):
        TargetLayer(model, name).trace(inputs)
