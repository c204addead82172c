"""Settings of Sphinx, which makes the site of these pages: `make docs`."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

import nemo_airflow

sys.path.insert(0, str(Path(__file__).parent))

from _site import pages, reference

project = "nemo-airflow"
author = "The authors of nemo-airflow"
project_copyright = author
version = release = nemo_airflow.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_site", "_templates"]
templates_path = ["_templates"]

# Anchors are those that GitHub gives, so that one link leads to the same place there and on the site.
myst_heading_anchors = 4
myst_enable_extensions = ["strikethrough"]
suppress_warnings = ["myst.strikethrough"]

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = "nemo-airflow"
html_sidebars = {"**": ["all-pages.html"]}
html_show_sourcelink = False
html_theme_options = {
    "navbar_center": [],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": [],
    "footer_end": [],
}


def setup(app: Sphinx) -> None:
    """Connects what is made when the site is built: the reference, the order of the pages, and llms.txt."""
    app.connect("builder-inited", lambda app: reference.write_pages(Path(app.srcdir) / reference.FOLDER))
    app.connect("source-read", pages.add_contents)
    app.connect("build-finished", pages.write_llms_texts)
