"""Base models, and encoders of the features that condition the hypernetwork."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """``depth`` linear layers ``layer1``, ``layer2``, ... with ReLU and dropout between: ``(N, inputs) -> (N, outputs)``.

    The base of the paper's tabular experiments (section 4: three layers; OCD edits the first).
    """

    def __init__(self, inputs: int, outputs: int, width: int = 256, depth: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [inputs, *[width] * (depth - 1), outputs]
        for place in range(depth):
            self.add_module(f"layer{place + 1}", nn.Linear(sizes[place], sizes[place + 1]))
        self.depth = depth
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        for place in range(1, self.depth):
            x = self.dropout(F.relu(self.get_submodule(f"layer{place}")(x)))
        return self.get_submodule(f"layer{self.depth}")(x)


class ResidualBlock(nn.Module):
    """``x + Dropout(Linear(Dropout(ReLU(Linear(BatchNorm(x))))))``, ``(N, width) -> (N, width)``; inside, twice as wide."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(self.norm(x))))))


class ResNet(nn.Module):
    """ResNet for tabular data of Gorishniy et al. 2021 (arXiv 2106.11959, section 3.2): ``(N, inputs) -> (N, outputs)``.

    ``layer1`` (linear), ``depth`` blocks, batch norm, ReLU, ``head`` (linear).
    """

    def __init__(self, inputs: int, outputs: int, width: int = 256, depth: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer1 = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width, dropout) for _ in range(depth)))
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.blocks(self.layer1(x)))))


class PiecewiseLinear(nn.Module):
    """Piecewise linear encoding ``(N, D) -> (N, D, bins)`` (Gorishniy et al. 2022, arXiv 2203.05556, equation 1).

    The bins are quantiles of ``train`` ``(N, D)``. Unlike in the paper, the first and last bin saturate too: a value beyond all
    training values is encoded like the nearest of them. This limits the effect of a shift on a model that uses the encoding.
    """

    edges: Tensor

    def __init__(self, train: Tensor, bins: int = 32) -> None:
        super().__init__()
        steps = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        # Quantiles are interpolated here, because torch.quantile refuses more than 16 million numbers.
        ordered = train.double().sort(dim=0).values
        place = steps * (len(ordered) - 1)
        below, above = ordered[place.floor().long()], ordered[place.ceil().long()]
        edges = torch.lerp(below, above, place.frac()[:, None])
        self.register_buffer("edges", edges.T.to(train.dtype).contiguous())
        self.features = bins

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.edges[:, :-1], self.edges[:, 1:]  # (D, bins) each
        return ((x[:, :, None] - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)


class Periodic(nn.Module):
    """``(N, D) -> (N, D, 2 * frequencies)``: sines and cosines of learned frequencies (arXiv 2203.05556, equation 2)."""

    def __init__(self, inputs: int, frequencies: int = 16, sigma: float = 0.3) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(sigma * torch.randn(inputs, frequencies))
        self.features = 2 * frequencies

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * torch.pi * x[:, :, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Embedded(nn.Module):
    """Each of D features is encoded, then embedded by a linear layer of its own and ReLU: ``(N, D) -> (N, D * width)``."""

    def __init__(self, embedding: PiecewiseLinear | Periodic, inputs: int, width: int = 16) -> None:
        super().__init__()
        self.embedding = embedding
        bound = embedding.features**-0.5
        self.weight = nn.Parameter(torch.empty(inputs, embedding.features, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(inputs, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.einsum("ndf,dfe->nde", self.embedding(x), self.weight) + self.bias).flatten(1)


class FeatureEncoder(Embedded):
    """Embeds each of D features separately, then mixes them: ``(N, D) -> (N, size)``."""

    def __init__(self, embedding: PiecewiseLinear | Periodic, inputs: int, width: int = 16, size: int = 128) -> None:
        super().__init__(embedding, inputs, width)
        self.mix = nn.Sequential(nn.Linear(inputs * width, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(super().forward(x))


class EmbeddedMLP(MLP):
    """:class:`MLP` on piecewise linear embeddings of the features, ``(N, D) -> (N, outputs)``: MLP-PL of Gorishniy et al. 2022
    (arXiv 2203.05556, section 3.2, "Q-LR"). ``layer1`` sees all embeddings.

    Args:
        train: the training rows ``(N, D)``, of which the encoding takes its quantiles.
    """

    def __init__(self, train: Tensor, outputs: int, width: int = 256, depth: int = 3, dropout: float = 0.0) -> None:
        size = 16  # numbers per feature
        super().__init__(train.shape[1] * size, outputs, width, depth, dropout)
        self.embedded = Embedded(PiecewiseLinear(train), train.shape[1], size)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.embedded(x))


MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "resnet": ResNet}
"""Models that are built from the number of inputs."""
