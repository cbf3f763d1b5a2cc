"""Networks that were trained on ImageNet, from other libraries. The input is converted to the network's form, and the last
layer is trained on features that are computed once."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from ocd_bench import Samples, Splits, UsageError
from ocd_bench.cache import model_sha256, tensor_sha256
from ocd_bench.checkpoint import misfit, read_state
from ocd_bench.folders import cache_folder
from ocd_bench.results import write_atomic

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the squared norm tried for the last layer, per standardised feature; validation pictures choose."""
STEPS = 100
"""Iterations of L-BFGS at most."""
BATCH = 100
STATISTICS = 2000
"""Training pictures that the statistics of batch norm layers are taken from."""


class Pretrained(nn.Module):
    """``(N, C, H, W)`` pictures in [0, 1] ``-> (N, classes)`` logits: resized inside to ``side``, then ``(x - mean) / sd``.

    Corruptions thus change the picture as stored, before it is resized.

    Args:
        net: the library's network.
        head: dotted name of its last linear layer.
        side: pixels square of its input; 0: pictures as they are.
        mean, sd: of its input's channels, for values in [0, 1].
    """

    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(self, net: nn.Module, head: str, side: int, mean: Sequence[float], sd: Sequence[float]) -> None:
        super().__init__()
        self.net, self.side = net, side
        self.adapted_layer = f"net.{head}"
        self.head_is_new = False
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(sd).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.side and x.shape[-2:] != (self.side, self.side):
            x = interpolate(x, size=(self.side, self.side), mode="bicubic", antialias=True)
        if x.shape[1] < len(self.mean):
            x = x.expand(-1, len(self.mean), -1, -1)
        return self.net((x - self.mean) / self.sd)

    def load(self, path: Path, hint: str) -> None:
        """The file's weights; the last layer keeps its own where the file's has another number of classes, and is then to be
        trained alone.

        Raises:
            UsageError: if the file is damaged, or of another architecture.
        """
        state = {key.removeprefix("net."): value for key, value in _read(path).items()}
        head = self.adapted_layer.removeprefix("net.")
        own = self.net.state_dict()
        anew = [name for name in (f"{head}.weight", f"{head}.bias") if name in own]
        if problem := misfit(self.net, state, anew):
            raise UsageError(f"checkpoint {path}: {problem}; {hint}")
        fitting = {key: value for key, value in state.items() if value.shape == own[key].shape}
        self.net.load_state_dict(fitting, strict=False)
        self.head_is_new = any(name not in fitting for name in anew)

    def take_statistics(self, samples: Samples, progress: Callable[[int, int], None]) -> None:
        """Means and variances of the batch norm layers from at most :data:`STATISTICS` pictures, drawn once: the mean over
        batches. One picture alone has none.

        Pictures that are small and resized have others than ImageNet's. A last layer that is trained on features under
        ImageNet's fits no features under the statistics of test batches, which methods such as Tent take.
        """
        norms = [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not norms or len(samples) < 2:
            return
        device, before = self.mean.device, [norm.momentum for norm in norms]
        few = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:STATISTICS]
        self.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        done = 0
        with torch.no_grad():
            for batch in few.tensor_split(max(1, len(few) // BATCH)):
                self(samples.inputs[batch].to(device))
                done += len(batch)
                progress(done, len(few))
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        self.eval()

    def train_head(self, splits: Splits, progress: Callable[[int, int], None]) -> Pretrained:
        """The last layer as a logistic regression on features of the training pictures, which are kept in the cache folder
        under the SHA-256 of network and pictures. The squared norm's weight is the one of :data:`PENALTIES` with the smallest
        cross entropy on validation pictures; nothing else is trained."""
        self.eval().requires_grad_(False)
        layer = self.get_submodule(self.adapted_layer)
        assert isinstance(layer, nn.Linear)
        total = len(splits.train) + len(splits.val)
        features = self._features(layer, splits.train, lambda done: progress(done, total))
        held = self._features(layer, splits.val, lambda done: progress(len(splits.train) + done, total))
        mean, sd = features.mean(0), features.std(0) + 1e-6
        best = float("inf")
        for penalty in PENALTIES:
            weight, bias = _regression((features - mean) / sd, splits.train.targets, layer.out_features, penalty)
            weight = weight / sd
            bias = bias - weight @ mean
            loss = nn.functional.cross_entropy(held @ weight.T + bias, splits.val.targets).item()
            if loss < best:
                best = loss
                with torch.no_grad():
                    layer.weight.copy_(weight)
                    layer.bias.copy_(bias)
        return self

    def _features(self, layer: nn.Linear, samples: Samples, progress: Callable[[int], None]) -> torch.Tensor:
        """The input of the last layer for each picture, ``(N, D)``."""
        kept = {name: value for name, value in self.state_dict().items() if not name.startswith(self.adapted_layer)}
        body = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(v, False) for name, v in kept.items()})
        key = f"{model_sha256(body)}|{tensor_sha256(samples.inputs)}|{self.side}|{torch.__version__.partition('+')[0]}"
        path = cache_folder() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        try:
            stored = np.load(path, allow_pickle=False)
            if stored.shape == (len(samples), layer.in_features):
                progress(len(samples))
                return torch.from_numpy(stored)
        except (OSError, ValueError, EOFError):
            pass  # absent or damaged: computed now
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].cpu()))
        device = layer.weight.device
        with torch.no_grad():
            for start in range(0, len(samples), BATCH):
                self(samples.inputs[start : start + BATCH].to(device))
                progress(min(len(samples), start + BATCH))
        hook.remove()
        features = torch.cat(seen)
        buffer = io.BytesIO()
        np.save(buffer, features.numpy())
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
        return features


def _read(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        return read_state(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"checkpoint {path}: not a readable file of weights ({error})") from error


def _regression(
    features: torch.Tensor, targets: torch.Tensor, classes: int, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight ``(K, D)`` and bias ``(K,)`` of the smallest mean cross entropy plus ``penalty`` times half the squared norm."""
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(features @ weight.T + bias, targets)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()


def lite0(classes: int, side: int) -> Pretrained:
    """EfficientNet-Lite0 (Tan and Le 2019; 3.4 M parameters of features, BatchNorm, ReLU6) from
    ``efficientnet-lite-pytorch``."""
    from ocd_bench import Unavailable

    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise Unavailable(f"model 'efficientnet-lite0' ({error}): pip install 'ocd-bench-images[lite]'") from error
    net = EfficientNet.from_name("efficientnet-lite0")
    net._fc = nn.Linear(net._fc.in_features, classes)  # its own option for this raises an error
    return Pretrained(net, "_fc", side or 128, (127 / 255,) * 3, (128 / 255,) * 3)
