"""A sheet of test pictures whose predicted class OCD changed: corrected errors, and equally visible, new errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from ocd_bench import Splits

TILE, FRAME, COLUMNS, TEXT_HEIGHT = 96, 4, 8, 50
MOST = 32
COLOURS = {"now right": (30, 140, 60), "now wrong": (200, 40, 40), "still wrong": (130, 130, 130)}
"""Colour of the frame: only OCD is right, only the base is right, or neither is."""


def draw_changes(splits: Splits, outputs: Mapping[str, torch.Tensor], folder: Path, method: str = "ocd") -> Sequence[Path]:
    """Write ``changed-<method>.png`` (Pillow, no matplotlib) and return its path. Write nothing if no prediction changed.

    Args:
        splits: splits with test pictures, targets and class names.
        outputs: method to logits ``(N, K)`` of the test pictures; needs ``base`` and ``method``.
        folder: where to write; created if necessary.
    """
    if "base" not in outputs or method not in outputs:
        return ()
    target = splits.test.targets
    before, after = (outputs[name].detach().cpu().argmax(-1) for name in ("base", method))
    groups = {
        "now right": (before != target) & (after == target),
        "now wrong": (before == target) & (after != target),
        "still wrong": (before != after) & (before != target) & (after != target),
    }
    shown = _share(groups)
    if not shown:
        return ()
    classes = splits.extras.get("classes") or range(outputs["base"].shape[-1])
    lines = -(-len(shown) // COLUMNS)
    cell_width, cell_height = TILE + 2 * FRAME + 8, TILE + 2 * FRAME + TEXT_HEIGHT
    sheet = Image.new("RGB", (COLUMNS * cell_width + 8, lines * cell_height + 32), "white")
    pen = ImageDraw.Draw(sheet)
    counts = ", ".join(f"{name} {int(mask.sum())}" for name, mask in groups.items())
    pen.text((8, 8), f"answers changed by {method}: {counts}; {len(shown)} shown", fill="black")
    for place, (group, index) in enumerate(shown):
        left, top = 8 + place % COLUMNS * cell_width, 32 + place // COLUMNS * cell_height
        pen.rectangle((left, top, left + TILE + 2 * FRAME - 1, top + TILE + 2 * FRAME - 1), fill=COLOURS[group])
        sheet.paste(_tile(splits.test.inputs[index]), (left + FRAME, top + FRAME))
        answers = {"true": target[index], "base": before[index], method: after[index]}
        text = "\n".join(_clip(f"{name}: {classes[int(answer)]}") for name, answer in answers.items())
        pen.multiline_text((left, top + TILE + 2 * FRAME + 2), text, fill="black", spacing=2)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"changed-{method}.png"
    sheet.save(path)
    return (path,)


def _share(groups: Mapping[str, torch.Tensor]) -> list[tuple[str, int]]:
    """At most :data:`MOST` (group, index), one of each group in turn as long as it lasts, then ordered by group."""
    queues = {name: mask.nonzero().flatten().tolist() for name, mask in groups.items()}
    turns = sorted((place, name, index) for name, queue in queues.items() for place, index in enumerate(queue))
    order = list(groups)
    return sorted(((name, index) for _, name, index in turns[:MOST]), key=lambda pair: (order.index(pair[0]), pair[1]))


def _tile(picture: torch.Tensor) -> Image.Image:
    levels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels[..., :3])
    return image.convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)


def _clip(text: str) -> str:
    """ASCII, which Pillow's built-in fonts have, and no wider than a tile."""
    text = text.encode("ascii", "replace").decode()
    return text if len(text) <= 17 else f"{text[:15]}.."
