"""Methods beside their authors' code: the largest difference of their outputs, on the same base and the same test batches.

The folder has a checkout for each original, under these names: ``tent`` (DequanWang/tent), ``eata`` (mr-eggplant/EATA), ``sar``
(mr-eggplant/SAR), ``t3a`` (matsuolab/T3A), ``memo`` (zhangmarvin/memo). What is not there is left out, in one line. Only the
definitions that are compared are taken from a file, so nothing else that the originals import has to be installed.

    python benchmarks/originals.py --originals FOLDER
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import itertools
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ocd_bench import Context, Request, Samples, Splits, Task
from ocd_bench.config import resolve
from ocd_bench.methods import builtin

CLASSES, BATCH, BATCHES = 10, 100, 8


class Blobs(Task):
    """Ten classes of noisy pictures ``(N, 3, 16, 16)``; the network has four batch norm layers."""

    name = "blobs"
    primary_metric = "accuracy"

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(((3, 8), (8, 12), (12, 16), (16, 24)), 1):
            block = OrderedDict(conv=nn.Conv2d(before, after, 3, padding=1), bn=nn.BatchNorm2d(after), relu=nn.ReLU())
            layers[f"layer{number}"] = nn.Sequential(block)  # SAR's code leaves out what is called layer4
        return nn.Sequential(layers | OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(24, CLASSES)))

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"accuracy": (output.argmax(-1) == target).float()}

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def views(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return inputs + 0.3 * torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype)


def draw(count: int, noise: float, generator: torch.Generator) -> Samples:
    """Samples of the ten classes: a pattern for each, the same in every call, and noise."""
    patterns = torch.randn(CLASSES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return Samples(patterns[labels] + noise * torch.randn(count, 3, 16, 16, generator=generator), labels, range(count))


@functools.cache
def trained(dtype: torch.dtype) -> tuple[Splits, nn.Module]:
    """Samples, and a base trained for a few steps."""
    generator, task = torch.Generator().manual_seed(1), Blobs()
    splits = Splits(draw(1000, 3.0, generator), draw(400, 3.0, generator), draw(BATCH, 3.0, generator))
    torch.manual_seed(2)
    model = task.base_model(splits, Request(task.name, "default"))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for inputs, targets in zip(splits.train.inputs.split(50), splits.train.targets.split(50), strict=True):
            optimizer.zero_grad()
            task.loss(model(inputs), targets).mean().backward()
            optimizer.step()
    splits = Splits(*(Samples(s.inputs.to(dtype), s.targets, s.groups) for s in (splits.train, splits.val, splits.test)))
    return splits, model.to(dtype).eval().requires_grad_(False)


def make_context(task: Blobs, settings: Mapping[str, Any], dtype: torch.dtype) -> Context:
    """What a method gets, with these settings."""
    (splits, model), request = trained(dtype), Request(task.name, "default")
    config = resolve(task, builtin(), "default", settings)
    cpu = torch.device("cpu")
    return Context(task, request, splits, model, "head", cpu, config.section, BATCH, lambda: [("head", 0.0)])


def stream() -> list[torch.Tensor]:
    """Test batches, each noisier than the one before."""
    generator = torch.Generator().manual_seed(3)
    return [draw(BATCH, 3.0 + 0.3 * k, generator).inputs for k in range(BATCHES)]


def definitions(path: Path, names: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """The functions and classes called ``names``, from a file of Python, which runs on the CPU here.

    Args:
        known: names that they use.
    """
    tree = ast.parse(path.read_text(encoding="utf-8").replace(".cuda()", ""))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names]
    if missing := set(names) - {node.name for node in wanted}:
        sys.exit(f"{path}: no definition of {', '.join(sorted(missing))}: another version of this code is expected")
    for node in wanted:  # compiled by torch, they would be looked for in an imported module
        node.decorator_list = [item for item in node.decorator_list if "jit" not in ast.unparse(item)]
    namespace = {
        "__name__": path.stem,
        "torch": torch,
        "nn": nn,
        "np": np,
        "math": math,
        "F": nn.functional,
        "deepcopy": copy.deepcopy,
        **known,
    }
    exec(compile(ast.Module(wanted, []), str(path), "exec"), namespace)
    return namespace


def everything(path: Path) -> dict[str, Any]:
    """All functions and classes of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return definitions(path, [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)], {})


# -- the originals: from a folder and a context to a function of test batches --------------------------------------------
Run = Callable[[torch.Tensor], torch.Tensor]


def norm(folder: Path, context: Context) -> Run:
    return everything(folder / "norm.py")["Norm"](context.fresh_base(), no_stats=True)


def tent(folder: Path, context: Context, steps: int = 1, episodic: bool = False) -> Run:
    code = everything(folder / "tent.py")
    model = code["configure_model"](context.fresh_base())
    optimizer = torch.optim.Adam(code["collect_params"](model)[0], 1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    return code["Tent"](model, optimizer, steps, episodic)


def eata(folder: Path, context: Context) -> Run:
    settings = context.settings("eata").resolved(CLASSES)
    code = everything(folder / "eata.py")
    model = code["configure_model"](context.fresh_base())
    parameters, _ = code["collect_params"](model)
    fishers: dict[str, list[torch.Tensor]] = {}  # as in its main.py
    batches = context.val.inputs[: settings.fisher_samples].split(settings.fisher_batch)
    for batch in batches:
        output = model(batch)
        model.zero_grad()
        nn.functional.cross_entropy(output, output.argmax(1)).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                share = parameter.grad.detach().square() / len(batches)
                fishers[name] = [share + fishers[name][0] if name in fishers else share, parameter.detach().clone()]
    optimizer = torch.optim.SGD(parameters, settings.lr, momentum=settings.momentum)
    margins = {"e_margin": settings.margin * math.log(CLASSES), "d_margin": settings.distance}
    return code["EATA"](model, optimizer, fishers, settings.alpha, **margins)


def sar(folder: Path, context: Context) -> Run:
    settings = context.settings("sar").resolved(CLASSES, False)
    code, sam = everything(folder / "sar.py"), everything(folder / "sam.py")
    model = code["configure_model"](context.fresh_base())
    parameters, _ = code["collect_params"](model)
    how = {"lr": settings.lr, "momentum": settings.momentum, "rho": settings.rho}
    return code["SAR"](model, sam["SAM"](parameters, torch.optim.SGD, **how), margin_e0=settings.margin * math.log(CLASSES))


def t3a(folder: Path, context: Context) -> Run:
    class Algorithm(nn.Module):
        def __init__(self, shape: Any, classes: int, domains: int, hparams: Mapping[str, Any]) -> None:
            super().__init__()
            self.hparams = hparams

    path = folder / "domainbed" / "adapt_algorithms.py"
    code = definitions(path, ["T3A", "softmax_entropy"], {"Algorithm": Algorithm})
    model = context.fresh_base()
    base = nn.Module()
    base.featurizer, base.classifier = model[:-1], model[-1]
    made = code["T3A"](None, CLASSES, 1, {"filter_K": context.settings("t3a").filter, "cached_loader": False}, base)
    return lambda inputs: made(inputs, adapt=True)


def memo(folder: Path, context: Context) -> Run:
    settings, generator = context.settings("memo"), context.generator("memo", "augment")
    copies: Iterator[torch.Tensor] = iter(())
    net = context.fresh_base().requires_grad_(True)
    known: dict[str, Any] = {
        "net": net,
        "optimizer": torch.optim.SGD(net.parameters(), lr=settings.lr),
        "args": argparse.Namespace(niter=settings.steps, batch_size=settings.copies),
        "aug": lambda image: next(copies),  # those that our method gets
    }
    code = definitions(folder / "cifar-10-exps" / "test_calls" / "test_adapt.py", ["marginal_entropy", "adapt_single"], known)

    def run(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal copies
        outputs = []
        for part in inputs.split(settings.chunk):
            views = context.task.views(part.repeat_interleave(settings.copies, 0), generator)
            assert views is not None
            for image, own in zip(part, views.split(settings.copies), strict=True):
                copies = itertools.cycle(own)  # the same ones at every step
                net.load_state_dict(context.base.state_dict())
                code["adapt_single"](image)
                outputs.append(net(image[None]))
        return torch.cat(outputs)

    return run


@dataclass(frozen=True)
class Case:
    """A method with settings, and its original."""

    method: str
    folder: str
    original: Callable[[Path, Context], Run]
    settings: Mapping[str, Any]

    def title(self) -> str:
        """For the table."""
        return ", ".join([self.method, *(f"{key.partition('.')[2]} {value:g}" for key, value in self.settings.items())])


CASES = (
    Case("bn-adapt", "tent", norm, {}),
    Case("tent", "tent", tent, {}),
    Case("tent", "tent", lambda folder, context: tent(folder, context, 3), {"tent.steps": 3}),
    Case("tent-episodic", "tent", lambda folder, context: tent(folder, context, 2, True), {}),
    Case("eata", "eata", eata, {}),
    Case("eata", "eata", eata, {"eata.distance": 0.05, "eata.alpha": 2000.0, "eata.lr": 2.5e-4}),
    Case("sar", "sar", sar, {"sar.recover": 0.2}),
    Case("sar", "sar", sar, {"sar.recover": 0.2, "sar.margin": 0.9, "sar.lr": 0.1}),
    Case("memo", "memo", memo, {"memo.copies": 8}),
    Case("memo", "memo", memo, {"memo.copies": 8, "memo.steps": 2}),
    Case("t3a", "t3a", t3a, {}),
    Case("t3a", "t3a", t3a, {"t3a.filter": 5}),
)


def compared(case: Case, folder: Path, dtype: torch.dtype) -> tuple[float, float, int]:
    """The largest difference of an output, how far the method moved an output of the base at most, and how many answers
    differ."""
    context = make_context(Blobs(), case.settings, dtype)
    (method,) = (method for method in builtin() if method.name == case.method)
    ours, theirs = method.fit(context), case.original(folder / case.folder, context)
    difference = moved = 0.0
    answers = 0
    for inputs in stream():
        inputs = inputs.to(dtype)
        mine, other = ours(inputs), theirs(inputs.clone()).detach()
        difference = max(difference, float((mine - other).abs().max()))
        moved = max(moved, float((mine - context.base(inputs)).abs().max()))
        answers += int((mine.argmax(1) != other.argmax(1)).sum())
    return difference, moved, answers


def rows(folder: Path, dtype: torch.dtype) -> Iterator[str]:
    """The table in Markdown, line by line."""
    yield f"| method | largest difference of a logit | moved by | other answers of {BATCH * BATCHES} |"
    yield "| --- | --- | --- | --- |"
    for case in CASES:
        if (folder / case.folder).is_dir():
            difference, moved, answers = compared(case, folder, dtype)
            yield f"| `{case.method}`{case.title().removeprefix(case.method)} | {difference:.1e} | {moved:.1f} | {answers} |"
        else:
            print(f"{case.title()}: left out, {folder / case.folder} is not there", file=sys.stderr)


def main() -> None:
    """The table, or one line if there is no folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--originals", type=Path, help="the folder with the authors' code")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="in which all of it is computed")
    args = parser.parse_args()
    if args.originals is None or not args.originals.is_dir():
        print("left out: give a folder with the authors' code, --originals FOLDER (see the top of this script)")
        return
    for line in rows(args.originals, getattr(torch, args.dtype)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
