"""The site, built from the root of the repository: ``sphinx-build -W -c docs . OUT``; CONTRIBUTING.md says more.

Tutorials are notebooks in Python files (jupytext's percent format). With ``VISLENS_NOTEBOOKS=FOLDER`` their outputs
come from that jupyter-cache, and what it lacks is executed; without it the site shows their text and code alone.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_site"))

from extension import package_version  # noqa: E402

project = "vislens_interp"
author = "The vislens_interp authors"
project_copyright = author
release = package_version()
language = "en"
root_doc = "docs/index"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "extension",
]
include_patterns = [
    "docs/**",
    "tutorials/*.py",
    "benchmarks/README.md",
    "benchmarks/*/README.md",
    "benchmarks/results/*.md",
    "vislens_interp/zoo/weights/*.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "RESULTS.md",
]
exclude_patterns = ["docs/_*", "docs/conf.py"]
suppress_warnings = [
    "misc.highlighting_failure",  # blocks without a language that are no Python
    "myst.header",  # tables that programs wrote begin at any depth
]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

nb_custom_formats = {".py": "extension.notebook"}
nb_execution_mode = "cache" if "VISLENS_NOTEBOOKS" in os.environ else "off"
nb_execution_cache_path = os.environ.get("VISLENS_NOTEBOOKS", "")
nb_execution_timeout = 900
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_excludepatterns = [] if "VISLENS_DATA" in os.environ else ["tutorials/04_v4_neuron.py"]
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = False

html_theme = "furo"
html_title = f"vislens_interp {release}"
html_static_path = ["_static"]
html_extra_path = ["_root"]  # the root leads to docs/index.html
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
