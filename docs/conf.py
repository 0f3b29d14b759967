"""The manual, for Sphinx: ``make docs``.

The build needs no network. ``DOCS_INTERSPHINX=1`` lets it fetch the inventories of other
projects, so that names such as `distributed.Client` link to their manuals.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import matplotlib as mpl

import dask_hpsearch

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))
mpl.use("agg")

project = "dask-hpsearch"
author = "dask-hpsearch developers"
project_copyright = author
release = version = dask_hpsearch.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
    "command_reference",
    "offline_pages",
    "repository_links",
]
exclude_patterns = ["_build", "_ext", "_templates", "gallery"]
templates_path = ["_templates"]
default_role = "autolink"
nitpicky = True
root_doc = "index"
suppress_warnings = ["config.cache"]  # sphinx-gallery's configuration has functions

# ------------------------------------------------------------------- Markdown
myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_heading_anchors = 4
# The first of these that exists.
_PICTURES = {
    "live-view-light.png": "A search under way, in a notebook",
    "search-history.png": "Scores of a search's candidates over time, and the best so far",
}
_FOUND = [one for one in _PICTURES if (DOCS / "images" / one).exists()]
myst_substitutions = {
    "landing_picture": f"![{_PICTURES[_FOUND[0]]}](images/{_FOUND[0]})"
}

# ------------------------------------------------------------------ reference
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
nitpick_ignore_regex = [
    # Names of other projects have a target only if their inventories were fetched.
    (r"py:.*", r"(?!dask_hpsearch\b).*"),
    # Modules that are the package's own have none.
    (r"py:obj", r"dask_hpsearch(\.[a-z_]+)+(\.[A-Z]\w*)?"),
]
intersphinx_mapping = {
    "dask": ("https://docs.dask.org/en/stable/", None),
    "distributed": ("https://distributed.dask.org/en/stable/", None),
    "python": ("https://docs.python.org/3/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
}
if os.environ.get("DOCS_INTERSPHINX") == "1":
    extensions.append("sphinx.ext.intersphinx")

# -------------------------------------------------------------------- gallery
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "image_scrapers": ("matplotlib",),
    "plot_gallery": "True",
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,  # its page loads scripts from other hosts
}
# A note of matplotlib without a screen.
warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")

# ----------------------------------------------------------------------- HTML
html_theme = "pydata_sphinx_theme"
html_title = "dask-hpsearch"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_sourcelink = False
html_sidebars = {"index": [], "install": [], "tour": []}  # of no section
html_theme_options = {
    "logo": {"text": "dask-hpsearch"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": {"**": ["page-toc"]},
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
