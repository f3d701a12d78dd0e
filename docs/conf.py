"""How the documentation is built: `sphinx-build -W docs build/docs`."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "micronet"
author = "The micronet authors"
release = version = installed_version("micronet")

extensions = ["myst_parser", "generated"]
exclude_patterns = ["_ext", "_build"]
myst_heading_anchors = 3

highlight_language = "none"
html_theme = "furo"
html_title = f"micronet {release}"
html_copy_source = False
