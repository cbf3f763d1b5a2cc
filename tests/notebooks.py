"""Run a notebook's cells as a reader would, in order and in one namespace, without a kernel.

Outputs are what a notebook shows: printed text, and the value of a cell's last line. ``OCD_BENCH_WRITE_DOCS=1`` stores them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

Output = dict[str, Any]


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook that hold code."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    """Its code."""
    return "".join(cell["source"])


def play(path: Path) -> list[list[Output]]:
    """The outputs of each code cell, in the working directory; modules beside the notebook can be imported."""
    space: dict[str, Any] = {"__name__": "__main__"}
    return [_run(source(cell), space, place) for place, cell in enumerate(code_cells(path), 1)]


def _run(text: str, space: dict[str, Any], number: int) -> list[Output]:
    tree = ast.parse(text)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    sys.path.insert(0, ".")
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"cell {number}", "exec"), space)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), space)
    finally:
        sys.path.remove(".")
    outputs: list[Output] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": printed.getvalue().splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": value._repr_html_().splitlines(keepends=True), **data}
        outputs.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return outputs


def store(path: Path, outputs: list[list[Output]]) -> None:
    """Put outputs into the notebook."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, found) in enumerate(zip(cells, outputs, strict=True), 1):
        cell["outputs"], cell["execution_count"] = found, number
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
