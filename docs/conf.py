"""Settings of the documentation's site; `make docs` builds it."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_extensions"), str(DOCS.parent)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Notebooks are written and tested in their own folder; a page needs its source among the others.
shutil.rmtree(DOCS / "notebooks", ignore_errors=True)
(DOCS / "notebooks").mkdir()
for notebook in sorted((DOCS.parent / "notebooks").glob("*.py")):
    shutil.copy2(notebook, DOCS / "notebooks")

project = "pg"
author = copyright = "the authors of pg"
html_title = "pg"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "myst_nb",
    "prose_docstrings",
]
# MathJax and its fonts in _static: no page needs a network
extensions += ["sphinx-mathjax-offline"]
exclude_patterns = ["_build", "_extensions", "tools", "conf.py", "**/.ipynb_checkpoints"]
# what is not ours has no page here, nor has what is private
nitpick_ignore_regex = [("py:.*", r"(?!pg\.).*"), ("py:.*", r"pg\..*\._\w+")]

extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "%s")}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_merge_streams = True

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
ADAPTED = (
    "brax",
    "craftax",
    "envpool",
    "jumanji",
    "kinetix",
    "mujoco_playground",
    "navix",
    "pgx",
    "popgym_arcade",
    "xminigrid",
)
autodoc_mock_imports = [name for name in ADAPTED if not find_spec(name)]
autodoc_typehints_format = "short"
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_theme = "sphinx_book_theme"
html_theme_options = {
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "use_download_button": False,
}
html_copy_source = False
html_show_sourcelink = False
