"""Sphinx configuration; pages that list objects are written by `generate.py` before the build."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402

import simkit  # noqa: E402

project = "zeroskip"
author = "The zeroskip authors"
release = version = simkit.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints", "generated/refit.md"]  # the last is included in a how-to
html_theme = "pydata_sphinx_theme"
html_title = "zeroskip"
html_static_path = ["_static"]
html_css_files = ["zeroskip.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False
copyright = "the zeroskip authors, Apache-2.0"

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
# notebooks are committed without outputs, so the site runs them; a cached run is used while the notebook is unchanged
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
# progress bars and the warnings of a build machine are not the notebook's
nb_output_stderr = "remove"
# a bar that is done needs no script, and the pages none from elsewhere
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

generate.write(HERE / "generated", notebooks=HERE.parent / "notebooks")
