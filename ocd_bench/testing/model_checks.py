"""Checks of a task's base model: repeatable, sample-wise, storable, trainable, and with a layer that can be adapted."""

from __future__ import annotations

import io

import torch

from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import TargetLayer, candidates, refusal
from ocd_bench.engine.forms import Full
from ocd_bench.layers import layers_of
from ocd_bench.testing.result import Fault, require
from ocd_bench.testing.trial import ROWS, TaskTrial, close, generator, same


def check_base_model(trial: TaskTrial) -> str:
    """The same torch seed gives the same weights, and every tensor moves with the model to a device."""
    model, again = trial.model, trial.build(1)
    first, second = model.state_dict(), again.state_dict()
    require(list(first) == list(second), "a second base_model of the same request has other parameters: decide by request only")
    for name, value in first.items():
        require(
            isinstance(value, torch.Tensor) and same(value, second[name]),
            f"{name!r} differs under the same torch seed: draw initial weights from the global torch generator",
        )
    for name, module in again.named_modules():
        for attribute, value in vars(module).items():
            require(
                not isinstance(value, torch.Tensor),
                f"{f'{name}.' if name else ''}{attribute} is a plain tensor and stays behind when the model moves to a device: "
                "register_buffer it",
            )
    count = sum(parameter.numel() for parameter in model.parameters())
    require(count > 0, "the base model has no parameters")
    require(count == 0 or any(p.requires_grad for p in model.parameters()), "no parameter of the base model requires gradients")
    return f"{count:,} parameters"


def check_output(trial: TaskTrial) -> str:
    """One finite floating tensor of N rows, the same each time, also for a batch of one. Inputs stay unchanged."""
    output, inputs = trial.output, trial.inputs
    require(
        output.ndim >= 1 and len(output) == len(inputs),
        f"the output has shape {tuple(output.shape)} for {len(inputs)} samples: its first size must be theirs",
    )
    require(output.is_floating_point(), f"the output is {output.dtype}: return floating numbers")
    require(bool(torch.isfinite(output).all()), "the output is not finite")
    with torch.no_grad():
        again, one = trial.model(inputs), trial.model(inputs[:1])
    require(same(inputs, trial.inputs), "the base model writes into its input: change a copy")
    require(
        same(output, again), "a second eval-mode forward differs: no random numbers in eval mode (dropout is off by itself)"
    )
    require(
        one.shape == (1, *output.shape[1:]),
        f"a batch of one gives {tuple(one.shape)}, expected {(1, *output.shape[1:])}: no squeeze() over the batch",
    )
    return f"{tuple(inputs.shape)} -> {tuple(output.shape)}"


def check_samplewise(trial: TaskTrial) -> str:
    """In eval mode, row j of the output depends only on row j of the input."""
    inputs, output = trial.inputs, trial.output
    cure = "no statistics, attention or sorting across the batch in eval mode"
    with torch.no_grad():
        turned = trial.model(inputs.flip(0)).flip(0)
        single = torch.cat([trial.model(row) for row in inputs.split(1)])
    for what, other in (("in another order", turned), ("on its own", single)):
        rows = [j for j in range(len(output)) if not close(output[j], other[j])]
        if rows:
            gap = (output[rows[0]] - other[rows[0]]).abs().max().item()
            raise Fault(f"row {rows[0]} of the output changes by {gap:.2g} when the batch is run {what}: {cure}")
    return ""


def check_state_dict(trial: TaskTrial) -> str:
    """The weights can be stored in a file without pickled objects, and give the same output when loaded."""
    buffer = io.BytesIO()
    torch.save(trial.model.state_dict(), buffer)
    buffer.seek(0)
    try:
        state = torch.load(buffer, weights_only=True)
    except Exception as error:
        raise Fault("the state dict holds more than tensors: keep get_extra_state() to plain values, or drop it") from error
    other = trial.build(2).eval()
    other.load_state_dict(state)
    with torch.no_grad():
        output = other(trial.inputs)
    require(
        close(output, trial.output),
        "a model with the same state dict gives another output: what it computes with must be a parameter or a buffer, "
        "or follow from the request",
    )
    return ""


def check_training(trial: TaskTrial) -> str:
    """For a training batch in train mode, the gradients of the loss are finite and reach the weights."""
    _ = trial.output  # if there is none, that check reports it
    model = trial.build(1).train()
    train = trial.splits.train
    inputs, targets = trial.task.subsample(train.inputs[:ROWS].clone(), train.targets[:ROWS].clone(), generator())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = trial.task.loss(model(inputs), targets).mean()
    loss.backward()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    require(bool(gradients), "the loss reaches no parameter of the model: no detach() or no_grad() between them")
    require(all(bool(torch.isfinite(g).all()) for g in gradients), "gradients of the training loss are not finite")
    require(any(bool((g != 0).any()) for g in gradients), "every gradient of the training loss is zero")
    return f"loss {loss.item():.4g}"


def check_layer(trial: TaskTrial) -> str:
    """The chosen layer can be adapted per sample: ΔW = 0 gives the base's output, and the loss has a gradient there."""
    model, inputs, targets = trial.model, trial.inputs, trial.targets
    _ = trial.output  # if there is none, that check reports it
    name = trial.task.select_layer(model, trial.request)
    if name is None:
        found = candidates(model, inputs[:2])
        if not found:
            reasons = "; ".join(f"{layer.name or 'the model itself'}: {layer.reason}" for layer in layers_of(model, inputs))
            raise Fault(
                "the base model has no layer that can be adapted: it needs a Linear or Conv layer with the sample as first "
                f"dimension, or attention or a recurrent module ({reasons})"
            )
        names = found[:1]
        note = f"by the entropy criterion, one of {', '.join(found)}"
    else:
        require(
            isinstance(name, str), f"select_layer returned a {type(name).__name__}: return the layer's dotted name, or None"
        )
        names, note = [name], name
    for name in names:
        reason = refusal(model, name, inputs)
        require(reason is None, f"select_layer chose a layer that cannot be adapted: {reason}")
        layer = TargetLayer(model, name)
        trace = layer.trace(inputs)
        zero = layer.weight.new_zeros(len(inputs), *layer.shape).requires_grad_()
        output = apply(trace, Full(zero))
        require(close(output, trial.output), f"layer {name!r}: ΔW = 0 does not give the base's output")
        (slope,) = torch.autograd.grad(trial.task.loss(output, targets).sum(), zero)
        require(bool(torch.isfinite(slope).all()), f"layer {name!r}: the gradient of the loss by its weight is not finite")
        require(bool((slope != 0).any()), f"layer {name!r}: the loss has no gradient there: choose a layer that it depends on")
    return note


def check_encoders(trial: TaskTrial) -> str:
    """Features of outputs and (with an encoder) of inputs are ``(N, D)``; outputs as pictures are ``(N, C, H, W)``."""
    count = len(trial.inputs)
    features = {"encode_output": trial.task.encode_output(trial.output)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = trial.task.encode_input(trial.splits, trial.request)
    if encoder is not None:
        require(
            isinstance(encoder, torch.nn.Module), f"encode_input returned a {type(encoder).__name__}: return a Module or None"
        )
        with torch.no_grad():
            features["encode_input"] = encoder.eval()(trial.inputs)
    for what, value in features.items():
        shape = tuple(value.shape)
        require(
            len(shape) == 2 and shape[0] == count and value.is_floating_point(),
            f"{what} gives {value.dtype} {shape} for {count} samples: return floating (N, D)",
        )
        require(bool(torch.isfinite(value).all()), f"{what} is not finite")
    found = {what: str(value.shape[1]) for what, value in features.items()}
    picture = trial.task.output_picture(trial.output)
    if picture is not None:
        shape = tuple(picture.shape)
        require(
            len(shape) == 4 and shape[0] == count and shape[1] in (1, 3),
            f"output_picture gives {shape} for {count} samples: return (N, 1, H, W) or (N, 3, H, W), or None",
        )
        require(
            bool(((picture >= 0) & (picture <= 1)).all()),
            "output_picture has values outside [0, 1]: scale or clamp them, no NaN among them",
        )
        found["output_picture"] = " x ".join(map(str, shape[1:]))
    return ", ".join(f"{what} {size}" for what, size in found.items())
