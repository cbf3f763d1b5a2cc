"""Attention and recurrent modules, computed by Linear layers that hold their weights, so that a weight can be adapted alone.

``nn.MultiheadAttention``, ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` and their cells use their weights by themselves, inside one fused
function. A stand-in computes the same (up to rounding) with one Linear layer per weight matrix. It takes the module's place
only while the base is traced and replayed for one of these weights; everything else in the model stays fused.

A weight is named as in the model's ``state_dict``: ``encoder.lstm.weight_hh_l0``, ``block.self_attn.in_proj_weight``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ocd_bench.errors import UsageError


class CallRefused(UsageError, ValueError):
    """The module is called in a way that leaves no row of its own to each sample; the message says how."""


class StandIn(ABC):
    """What takes a module's place: the same function, with its weights in Linear layers.

    Attributes:
        layers: Linear layers by the names of their weights. They share memory with the module's parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module, known = ref(module), module._parameters
        self.layers = {name: _linear(known[name], known.get(self.bias_of(name))) for name in self.weights(module)}

    @property
    def module(self) -> Any:
        """The module."""
        return self._module()

    def current(self) -> bool:
        """Whether the module still has the parameters for which this was made."""
        return all(layer.weight is self.module._parameters.get(name) for name, layer in self.layers.items())

    @staticmethod
    @abstractmethod
    def weights(module: Any) -> list[str]:
        """Names of the weight matrices of a module."""

    def bias_of(self, name: str) -> str:
        """The name of the bias that is added where the weight ``name`` is applied."""
        return name.replace("weight", "bias")

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward.

        Raises:
            CallRefused: for inputs whose rows are not samples.
        """


def stand_in(module: nn.Module) -> StandIn | None:
    """The stand-in of an attention or recurrent module, always the same one; None for other modules, and where there is none
    (:func:`hindrance`)."""
    kind = _kind(module)
    if kind is None or hindrance(module):
        return None
    found = _known.get(module)
    if found is None or not found.current():
        found = _known[module] = STAND_INS[kind](module)
    return found


def hindrance(module: nn.Module) -> str:
    """Why an attention or recurrent module has no stand-in; empty if it has one, and for other modules."""
    kind = _kind(module)
    if kind is None:
        return ""
    if type(module).forward is not kind.forward:
        return "has a forward of its own, which may use its weights in another way"
    if any(module._parameters.get(name) is None for name in STAND_INS[kind].weights(module)):
        return "has a weight that is computed from others (weight norm or another parametrization)"
    return ""


def _kind(module: nn.Module) -> type[nn.Module] | None:
    return next((kind for kind in STAND_INS if isinstance(module, kind)), None)


def inner_weights(model: nn.Module) -> list[str]:
    """Names of all weights inside attention and recurrent modules of ``model``, in its order."""
    found = [(name, stand_in(module)) for name, module in model.named_modules()]
    return [f"{name}.{weight}".removeprefix(".") for name, own in found if own for weight in own.layers]


def _linear(weight: Any, bias: Any) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = weight
    if bias is not None:
        layer.bias = bias
    return layer.eval()


# -- attention ------------------------------------------------------------------------------------------------------------
class AttentionStandIn(StandIn):
    """Projections by Linear layers, ``(N, L, E)``. torch's own attention does the rest, with the identity as projections, so
    that masks and extra keys mean what they mean there."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__(module)
        weight, size = module.out_proj.weight, module.embed_dim
        self.inner = nn.MultiheadAttention(
            size, module.num_heads, bias=False, add_zero_attn=module.add_zero_attn, batch_first=True, device="meta"
        ).eval()
        one = torch.eye(size, dtype=weight.dtype, device=weight.device)
        self.inner.in_proj_weight = nn.Parameter(one.repeat(3, 1), requires_grad=False)
        self.inner.out_proj.weight = nn.Parameter(one, requires_grad=False)
        self.inner.bias_k, self.inner.bias_v = module.bias_k, module.bias_v

    def current(self) -> bool:
        one, weight = self.inner.out_proj.weight, self.module.out_proj.weight
        return super().current() and (one.device, one.dtype) == (weight.device, weight.dtype)

    @staticmethod
    def weights(module: nn.MultiheadAttention) -> list[str]:
        same = module.in_proj_weight is not None
        return ["in_proj_weight"] if same else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]

    def bias_of(self, name: str) -> str:
        return "in_proj_bias" if name == "in_proj_weight" else ""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        module = self.module
        if query.ndim != 3:
            raise CallRefused(f"is in attention on one sequence of shape {tuple(query.shape)}, without a batch")
        given = {id(tensor): tensor if module.batch_first else tensor.transpose(0, 1) for tensor in (query, key, value)}
        if "in_proj_weight" in self.layers:
            # one call for each different input; of its rows for queries, keys and values those that are needed
            rows = {place: self.layers["in_proj_weight"](tensor).chunk(3, -1) for place, tensor in given.items()}
            q, k, v = (rows[id(tensor)][part] for part, tensor in enumerate((query, key, value)))
        else:
            q, k, v = (
                self._project(name, part, given[id(tensor)])
                for part, (name, tensor) in enumerate({"q": query, "k": key, "v": value}.items())
            )
        found, weights = self.inner(q, k, v, *args, **kwargs)
        found = module.out_proj(found)
        return (found if module.batch_first else found.transpose(0, 1)), weights

    def _project(self, name: str, part: int, given: Tensor) -> Tensor:
        rows = self.layers[f"{name}_proj_weight"](given)
        bias = self.module.in_proj_bias  # one for all three, also where their weights are apart
        return rows if bias is None else rows + bias.chunk(3)[part]


# -- recurrent modules ----------------------------------------------------------------------------------------------------
State = tuple[Tensor, ...]


def _step(kind: str, given: Tensor, before: Tensor, state: State) -> State:
    """The state after one step.

    Args:
        kind: ``LSTM``, ``GRU``, ``RNN_TANH`` or ``RNN_RELU``.
        given, before: the weights' responses to the step's input and to the last state, ``(N, gates * H)``.
    """
    if kind == "LSTM":
        i, f, g, o = (given + before).chunk(4, 1)
        cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell
    if kind == "GRU":
        (r, z, n), (r_, z_, n_) = given.chunk(3, 1), before.chunk(3, 1)
        z = (z + z_).sigmoid()
        new = (n + (r + r_).sigmoid() * n_).tanh()
        return ((1 - z) * new + z * state[0],)
    total = given + before
    return (total.tanh() if kind == "RNN_TANH" else total.relu(),)


class CellStandIn(StandIn):
    """``weight_ih`` on the input of a step and ``weight_hh`` on the last state, each ``(N, ...)``."""

    @staticmethod
    def weights(module: nn.RNNCellBase) -> list[str]:
        return ["weight_ih", "weight_hh"]

    def __call__(self, input: Tensor, hx: Any = None) -> Any:
        module = self.module
        if input.ndim != 2:
            raise CallRefused(f"is in a cell on one vector of shape {tuple(input.shape)}, without a batch")
        several = isinstance(module, nn.LSTMCell)
        if hx is None:
            zero = input.new_zeros(len(input), module.hidden_size)
            hx = (zero, zero) if several else zero
        state = tuple(hx) if several else (hx,)
        kind = type(self)._kind(module)
        state = _step(kind, self.layers["weight_ih"](input), self.layers["weight_hh"](state[0]), state)
        return state if several else state[0]

    @staticmethod
    def _kind(module: nn.RNNCellBase) -> str:
        if isinstance(module, nn.RNNCell):
            return f"RNN_{module.nonlinearity.upper()}"
        return "LSTM" if isinstance(module, nn.LSTMCell) else "GRU"


class RecurrentStandIn(StandIn):
    """Each ``weight_ih`` runs once, on all steps, ``(N, T, ...)``. Any ``weight_hh`` and ``weight_hr`` runs in every step."""

    @staticmethod
    def weights(module: nn.RNNBase) -> list[str]:
        return [name for name in module._flat_weights_names if name.startswith("weight")]

    def bias_of(self, name: str) -> str:
        return "" if "hr" in name else super().bias_of(name)

    def __call__(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        module = self.module
        if isinstance(input, PackedSequence):
            raise CallRefused("is given a packed sequence: its number of steps depends on the longest sample of the batch")
        if input.ndim != 3:
            raise CallRefused(f"is given one sequence of shape {tuple(input.shape)}, without a batch")
        x = input if module.batch_first else input.transpose(0, 1)  # (N, T, I)
        directions, several = 1 + module.bidirectional, module.mode == "LSTM"
        if hx is None:
            size = module.proj_size or module.hidden_size
            count = module.num_layers * directions
            hx = (x.new_zeros(count, len(x), size), x.new_zeros(count, len(x), module.hidden_size))[: 1 + several]
        elif not several:
            hx = (hx,)
        last: list[State] = []
        for layer in range(module.num_layers):
            runs = []
            for direction in range(directions):
                start = tuple(part[len(last)] for part in hx)
                steps, end = self._run(f"_l{layer}" + "_reverse" * direction, x, start, backwards=bool(direction))
                runs.append(steps)
                last.append(end)
            x = torch.cat(runs, 2)
        ends = tuple(torch.stack(part) for part in zip(*last, strict=True))
        return (x if module.batch_first else x.transpose(0, 1)), (ends if several else ends[0])

    def _run(self, place: str, x: Tensor, state: State, backwards: bool) -> tuple[Tensor, State]:
        """Outputs ``(N, T, H)`` in the order of the input, and the last state."""
        given = self.layers[f"weight_ih{place}"](x)
        again, project = self.layers[f"weight_hh{place}"], self.layers.get(f"weight_hr{place}")
        found: list[Tensor] = []
        for step in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
            state = _step(self.module.mode, given[:, step], again(state[0]), state)
            if project is not None:
                state = (project(state[0]), *state[1:])
            found.append(state[0])
        return torch.stack(found[::-1] if backwards else found, 1), state


STAND_INS: dict[type[nn.Module], type[StandIn]] = {
    nn.MultiheadAttention: AttentionStandIn,
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN), RecurrentStandIn),
    **dict.fromkeys((nn.LSTMCell, nn.GRUCell, nn.RNNCell), CellStandIn),
}

_known: WeakKeyDictionary[nn.Module, StandIn] = WeakKeyDictionary()
"""Two weights of one module are adapted through one stand-in, so that both can be changed in one run."""
