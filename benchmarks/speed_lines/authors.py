"""Lines of methods beside the code of their authors, where a folder of it is given (``--authors``).

Expected are clones of the public repositories, at any depth: tent.py (Wang et al.), eata.py and sar.py with sam.py (Niu et
al.), adapt_algorithms.py of T3A (Iwasawa and Matsuo), cifar-10-exps/test_calls/test_adapt.py of MEMO (Zhang et al.). Their
functions run as they are, on the CPU, on ResNet-20 with random weights and random pictures.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.util
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench.method import Context
from ocd_bench.methods import builtin
from speed_lines.tasks import context_of, random_pictures
from speed_lines.timing import Line, Pair, Side, Skipped, same

BATCH, BATCHES = 64, 2


def find(folder: Path | None, name: str, holds: str) -> Path:
    """The first file of that name that holds a text.

    Raises:
        Skipped: if there is none.
    """
    if folder is None:
        raise Skipped("needs --authors FOLDER")
    for path in sorted(folder.rglob(Path(name).name)):
        if path.as_posix().endswith(name) and holds in path.read_text(encoding="utf-8", errors="replace"):
            return path
    raise Skipped(f"no {name} with {holds!r} in {folder}")


def load(path: Path) -> ModuleType:
    """A file as a module."""
    spec = importlib.util.spec_from_file_location(f"authors_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network() -> tuple[Context, list[Tensor]]:
    """ResNet-20, sure of its answers although its weights are random, and batches of pictures."""
    context, test = context_of("images", "cifar10", random_pictures(), model="resnet20")
    last = [module for module in context.base.modules() if isinstance(module, nn.Linear)][-1]
    last.weight *= 20
    return context, list(test.inputs.split(BATCH))[:BATCHES]


def ours(name: str, context: Context) -> Any:
    """The predictor of a method of the suite."""
    (method,) = (method for method in builtin() if method.name == name)
    return method.fit(context)


def stream(predict: Callable[[Tensor], Tensor], batches: list[Tensor]) -> Tensor:
    """Outputs of all batches in turn, without what the authors' code prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return torch.cat([predict(batch).detach() for batch in batches])


def pair(
    predictor: Any, start: Callable[[], Callable[[Tensor], Tensor]], batches: list[Tensor], tolerance: float = 1e-3
) -> Pair:
    """Both on the same batches, each from the base on in every round.

    Args:
        start: gives the authors' method as it is before the first batch.
    """
    holder: dict[str, Callable[[Tensor], Tensor]] = {}

    def begin() -> None:
        holder["call"] = start()

    def check() -> str:
        predictor.reset()
        return same(stream(predictor, batches), stream(start(), batches), "outputs", tolerance)

    count = sum(map(len, batches))
    return Pair(
        Side("ours", lambda: stream(predictor, batches), count, predictor.reset),
        Side("authors'", lambda: stream(holder["call"], batches), count, begin),
        check,
    )


def tent(options: Any) -> Pair:
    """tent.py, Adam with the learning rate of the settings."""
    module = load(find(options.authors, "tent.py", "class Tent"))
    context, batches = network()

    def start() -> Callable[[Tensor], Tensor]:
        model = module.configure_model(context.fresh_base())
        settings = context.settings("tent")
        return module.Tent(model, torch.optim.Adam(module.collect_params(model)[0], settings.lr, settings.betas))

    return pair(ours("tent", context), start, batches)


def eata(options: Any) -> Pair:
    """eata.py without the Fisher penalty, which main.py computes."""
    module = load(find(options.authors, "eata.py", "class EATA"))
    context, batches = network()
    whole = context.settings
    settings = whole("eata").__class__(alpha=0.0)
    context = copy.copy(context)
    object.__setattr__(context, "settings", lambda name: settings if name == "eata" else whole(name))
    numbers = settings.resolved(10)

    def start() -> Callable[[Tensor], Tensor]:
        model = module.configure_model(context.fresh_base())
        sgd = torch.optim.SGD(module.collect_params(model)[0], numbers.lr, numbers.momentum)
        return module.EATA(model, sgd, e_margin=numbers.margin * math.log(10), d_margin=numbers.distance)

    return pair(ours("eata", context), start, batches)


def sar(options: Any) -> Pair:
    """sar.py and sam.py."""
    module, sam = load(find(options.authors, "sar.py", "class SAR")), load(find(options.authors, "sam.py", "class SAM"))
    context, batches = network()
    predictor = ours("sar", context)
    numbers = context.settings("sar").resolved(10, False)

    def start() -> Callable[[Tensor], Tensor]:
        model = module.configure_model(context.fresh_base())
        weights = module.collect_params(model)[0][: len(predictor.weights)]
        optimizer = sam.SAM(weights, torch.optim.SGD, rho=numbers.rho, lr=numbers.lr, momentum=numbers.momentum)
        return module.SAR(model, optimizer, margin_e0=numbers.margin * math.log(10))

    return pair(predictor, start, batches)


def t3a(options: Any) -> Pair:
    """The class T3A of adapt_algorithms.py, whose base class is a plain module here."""
    path = find(options.authors, "adapt_algorithms.py", "class T3A")

    class Algorithm(nn.Module):
        def __init__(self, shape: Any, classes: int, domains: int, hparams: dict[str, Any]) -> None:
            super().__init__()
            self.hparams = hparams

    stubs = {"domainbed": ModuleType("domainbed"), "domainbed.algorithms": ModuleType("domainbed.algorithms")}
    stubs["domainbed.algorithms"].Algorithm = Algorithm  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        module = load(path)
    finally:
        for name, own in before.items():
            if own is None:
                del sys.modules[name]
            else:
                sys.modules[name] = own
    context, batches = network()
    predictor = ours("t3a", context)

    def start() -> Callable[[Tensor], Tensor]:
        model = context.fresh_base()
        name, last = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1]
        owner = model.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], nn.Identity())
        algorithm = SimpleNamespace(featurizer=model, classifier=last)
        numbers = {"filter_K": context.settings("t3a").filter, "cached_loader": False}
        method = module.T3A((3, 32, 32), 10, 1, numbers, algorithm)

        def call(batch: Tensor) -> Tensor:
            with torch.no_grad():
                return method(batch, adapt=True)

        return call

    return pair(predictor, start, batches)


def memo(options: Any) -> Pair:
    """adapt_single of test_adapt.py, on the copies that ours draws."""
    path = find(options.authors, "cifar-10-exps/test_calls/test_adapt.py", "def adapt_single")
    context, _ = network()
    predictor = ours("memo", context)
    settings, x = context.settings("memo"), context.val.inputs[:8]
    wanted = ("marginal_entropy", "adapt_single")
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if getattr(node, "name", "") in wanted]
    code = compile(ast.Module(functions, []), str(path), "exec")

    def start() -> Callable[[Tensor], Tensor]:
        import numpy as np

        net = context.fresh_base().requires_grad_(True)
        weights = copy.deepcopy(net.state_dict())
        predictor.reset()
        copies = iter(predictor._copies(x).flatten(0, 1))
        space: dict[str, Any] = {
            "torch": torch, "np": np, "net": net, "aug": lambda picture: next(copies),
            "optimizer": torch.optim.SGD(net.parameters(), lr=settings.lr),
            "args": SimpleNamespace(niter=settings.steps, batch_size=settings.copies),
        }  # fmt: skip
        exec(code, space)

        def call(batch: Tensor) -> Tensor:
            found, cuda = [], torch.Tensor.cuda
            torch.Tensor.cuda = lambda self: self  # type: ignore[assignment, method-assign, misc]
            try:
                for picture in batch:
                    net.load_state_dict(weights)
                    space["adapt_single"](picture)
                    with torch.no_grad():
                        found.append(net.eval()(picture[None]))
            finally:
                torch.Tensor.cuda = cuda  # type: ignore[method-assign]
            return torch.cat(found)

        return call

    return pair(predictor, start, [x])


LINES = [Line(f"{name} / its authors' code", build) for name, build in
         (("tent", tent), ("memo", memo), ("t3a", t3a), ("eata", eata), ("sar", sar))]  # fmt: skip
