"""How Sphinx builds the manual: ``make docs``."""

import papyros

project = "Papyros"
author = "The Papyros authors"
copyright = "2007-2026, The Papyros authors"
version = release = papyros.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "measured"]  # what is measured is included in pages
html_theme = "furo"
html_title = f"Papyros {release}"

# Engines that are large, and whose names are all that the manual needs.
autodoc_mock_imports = ["distributed", "ray"]

# Words in single backticks in docstrings are names; those that are documented become links.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_use_ivar = True
myst_heading_anchors = 3
