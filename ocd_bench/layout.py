"""Several tensors per sample as one, for tasks with several inputs, masks or outputs.

The suite moves one tensor of inputs and one of outputs from sample to prediction. A :class:`Layout` packs several into one, and
takes them apart again: inputs in ``load_data`` and in the model's ``forward``, outputs in ``forward`` and in the loss.

.. versionadded:: 0.1
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Layout"]

EXACT = 2**24
"""float32 holds every integer up to here."""


class Layout:
    """Names, shapes and types of the parts of a sample.

    Args:
        parts: name to one example tensor of it, for one sample, without the batch dimension; or to its shape, for floating
            numbers.

    Raises:
        ValueError: without parts.

    Example:
        >>> import torch
        >>> layout = Layout(tokens=torch.zeros(4, dtype=torch.long), mask=torch.zeros(4, dtype=torch.bool), age=())
        >>> tokens = torch.tensor([[5, 7, 0, 0], [3, 1, 4, 1]])
        >>> packed = layout.pack(tokens=tokens, mask=tokens > 0, age=torch.tensor([30.0, 41.5]))
        >>> packed.shape
        torch.Size([2, 9])
        >>> parts = layout.unpack(packed)
        >>> parts["tokens"].equal(tokens), parts["mask"].dtype, parts["age"]
        (True, torch.bool, tensor([30.0000, 41.5000]))

    .. versionadded:: 0.1
    """

    def __init__(self, **parts: torch.Tensor | tuple[int, ...]) -> None:
        import torch

        if not parts:
            raise ValueError("a layout needs at least one part, such as Layout(left=(3,), right=(5,))")
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(part.shape) if isinstance(part, torch.Tensor) else tuple(part) for name, part in parts.items()
        }
        self.dtypes: Mapping[str, torch.dtype] = {
            name: part.dtype if isinstance(part, torch.Tensor) else torch.float32 for name, part in parts.items()
        }
        self.size = sum(map(math.prod, self.shapes.values()))

    def pack(self, **parts: torch.Tensor) -> torch.Tensor:
        """Parts ``(N, *shape)`` as one float32 tensor ``(N, size)``. Gradients pass through.

        Raises:
            ValueError: for a part that is missing, unknown, of another shape, or with integers above 2**24, which float32 does
                not hold.
        """
        import torch

        for name in [*self.shapes, *parts]:
            if name not in parts or name not in self.shapes:
                what = "is missing" if name in self.shapes else "is none of the layout"
                raise ValueError(f"part {name!r} {what}; parts: {', '.join(self.shapes)}")
        count = len(next(iter(parts.values())))
        rows = []
        for name, shape in self.shapes.items():
            part = parts[name]
            if tuple(part.shape) != (count, *shape):
                raise ValueError(f"part {name!r} has shape {tuple(part.shape)}, expected {(count, *shape)}")
            if (
                not part.is_floating_point()
                and part.numel()
                and int(part.abs().max() if part.dtype != torch.bool else 0) > EXACT
            ):
                raise ValueError(f"part {name!r} has integers above 2**24, which float32 does not hold: number them anew")
            rows.append(part.reshape(count, -1).float())
        return torch.cat(rows, 1)

    def unpack(self, packed: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts ``(N, *shape)`` of a packed ``(N, size)``, each in its own type.

        Raises:
            ValueError: if the tensor is of another size.
        """
        if packed.ndim != 2 or packed.shape[1] != self.size:
            raise ValueError(f"a tensor of shape {tuple(packed.shape)} was not packed with this layout, of size {self.size}")
        pieces = packed.split([math.prod(shape) for shape in self.shapes.values()], 1)
        return {
            name: piece.reshape(len(packed), *self.shapes[name]).to(self.dtypes[name])
            for name, piece in zip(self.shapes, pieces, strict=True)
        }

    def __repr__(self) -> str:
        return f"Layout({', '.join(f'{name}={shape}' for name, shape in self.shapes.items())})"
