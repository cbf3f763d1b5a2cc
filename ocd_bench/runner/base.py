"""The shared base model of a (task, dataset, seed): trained once, kept in a cache by fingerprint."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ocd_bench import __version__
from ocd_bench.config import BaseSettings, Config, fingerprint
from ocd_bench.errors import UsageError
from ocd_bench.folders import cache_folder
from ocd_bench.online import keep_group_norms_contiguous
from ocd_bench.results import write_atomic
from ocd_bench.seeds import derive

if TYPE_CHECKING:
    from ocd_bench.samples import Samples, Splits
    from ocd_bench.task import Request, Task

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BaseModel:
    """A trained base in eval mode without gradients, its fingerprint, and what its training cost."""

    model: torch.nn.Module
    sha256: str
    fit_s: float
    cached: bool


def tensor_sha256(*tensors: torch.Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of the tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def model_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over the state dict, names included."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor_sha256(tensor).encode())
    return digest.hexdigest()


def obtain_base(
    task: Task,
    splits: Splits,
    request: Request,
    config: Config,
    device: torch.device,
    build: Callable[[], torch.nn.Module],
    progress: Progress,
) -> BaseModel:
    """The trained base: from the cache if data, settings, architecture and version agree, else trained now.

    Args:
        build: gives the untrained model (the ``ocd_bench_base_model`` hook).
    """
    seed = derive(request.task, request.dataset, "", request.seed, "base")
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        model = build().to(device)
        keep_group_norms_contiguous(model)
        settings: BaseSettings = config.section("base")
        key = fingerprint(
            {
                "version": __version__,
                "torch": torch.__version__.split("+")[0],
                "task": task.name,
                "dataset": request.dataset,
                "seed": request.seed,
                "device": device.type,
                "settings": config.as_dict(["base", task.name]),
                "architecture": str(model),
                "data": tensor_sha256(splits.train.inputs, splits.train.targets, splits.val.inputs, splits.val.targets),
                "initial": model_sha256(model),
            }
        )
        path = cache_folder() / "bases" / f"{task.name}-{request.dataset}-s{request.seed}-{key[:16]}.pt"
        record = path.with_suffix(".json")
        if settings.cache and path.exists() and record.exists():
            model.load_state_dict(torch.load(path, map_location=device, weights_only=True))
            return BaseModel(_freeze(model), model_sha256(model), json.loads(record.read_text())["fit_s"], True)
        start = time.perf_counter()
        trained = task.train_base(model, splits, request, lambda done, total: progress("base", done, total))
        if trained is None:
            trained = train(model, task, splits, request, settings, device, progress)
        fit_s = time.perf_counter() - start
    model = _freeze(trained.to(device))
    if settings.cache:
        _save(model, path, {"fit_s": fit_s, "key": key})
    return BaseModel(model, model_sha256(model), fit_s, False)


def _freeze(model: torch.nn.Module) -> torch.nn.Module:
    return model.eval().requires_grad_(False)


def _save(model: torch.nn.Module, path: Path, record: dict[str, Any]) -> None:
    import io

    buffer = io.BytesIO()
    torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
        write_atomic(path.with_suffix(".json"), json.dumps(record).encode())
    except OSError as error:
        raise UsageError(
            f"cannot write the base model cache {path.parent}: {error.strerror}; set OCD_BENCH_CACHE, or --set base.cache=false"
        ) from error


def train(
    model: torch.nn.Module,
    task: Task,
    splits: Splits,
    request: Request,
    settings: BaseSettings,
    device: torch.device,
    progress: Progress,
) -> torch.nn.Module:
    """Minimise ``task.loss`` on the training samples; the epoch of the smallest mean validation loss is kept."""
    order = request.generator("base-order")
    changes = request.generator("base-augment")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(settings, parameters)
    batches = -(-len(splits.train) // settings.batch_size)
    total = max(1, settings.epochs * batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    best, best_state = float("inf"), None
    for epoch in range(settings.epochs):
        model.train()
        permutation = torch.randperm(len(splits.train), generator=order)
        for number, indices in enumerate(permutation.split(settings.batch_size)):
            batch = splits.train.take(indices)
            inputs, targets = task.subsample(batch.inputs, batch.targets, changes)
            if settings.augment:
                inputs, targets = task.augment(inputs, targets, changes)
            if len(inputs) < 2 and number:
                continue  # batch statistics of one sample are undefined
            loss = task.loss(model(inputs.to(device)), targets.to(device)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            progress("base", epoch * batches + number + 1, total)
        validation = mean_loss(model.eval(), task, splits.val, settings.batch_size, device)
        if validation < best or best_state is None:
            best = validation
            best_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if best_state is not None:
        model.load_state_dict(best_state)
    return model


def _optimizer(settings: BaseSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.lr, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay)
    raise UsageError(f"setting base.optimizer={settings.optimizer!r}: expected adamw, adam or sgd")


@torch.no_grad()
def mean_loss(model: torch.nn.Module, task: Task, samples: Samples, batch_size: int, device: torch.device) -> float:
    """Mean of the task's per-sample losses."""
    total = 0.0
    for start in range(0, len(samples), batch_size):
        batch = samples.take(slice(start, start + batch_size))
        total += task.loss(model(batch.inputs.to(device)), batch.targets.to(device)).sum().item()
    return total / len(samples)
