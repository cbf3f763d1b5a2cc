"""Configuration of Sphinx for the site of these pages and docstrings: ``tox -e docs``, or ``sphinx-build docs docs/_build``.

Heavy packages are not imported: their names in annotations are text.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ocd_bench._version import __version__

project = "OCD-Bench"
author = "The OCD-Bench authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"OCD-Bench {release}"
html_show_copyright = False

myst_heading_anchors = 3
"""Headings can be linked to, as on a Git host."""

suppress_warnings = ["myst.xref_missing"]
"""Links to files outside this folder. tests/test_docs.py checks that every link leads somewhere."""

autodoc_mock_imports = ["torch", "pandas", "safetensors", "ocd_bench.engine"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "special-members": "__call__", "undoc-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _whole(app, what, name, obj, options, lines):
    """Napoleon takes the text before a colon in an attribute's first line for its type. A comment prevents that."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def setup(app):
    """Called by Sphinx. Napoleon's own handler has the priority 500."""
    app.connect("autodoc-process-docstring", _whole, priority=400)
