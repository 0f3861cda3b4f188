"""The documentation as pages: ``make docs`` builds ``docs/_build/html`` from the Markdown files beside this one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import recipe_keys  # noqa: E402

from acclimate import __version__  # noqa: E402

project, author = "Acclimate", "the Acclimate authors"
version = release = __version__
html_title = f"Acclimate {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = html_show_copyright = html_copy_source = False

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3  # links such as data.md#layouts, as GitHub makes them
default_role = "code"  # docstrings put names into single backticks
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

ROOT_PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files beside this folder, and the pages that show them. On GitHub such a page is a link to the file."""


def prepare(app: Any, name: str, source: list[str]) -> None:
    """What a page holds beyond its own file; and links that lead out of this folder on GitHub stay inside."""
    text = source[0]
    if shown := re.fullmatch(r"\[.*\]\(\.\./(\w+\.md)\)\s*", text):
        text = (HERE.parent / shown[1]).read_text(encoding="utf-8")
        text = re.sub(r'(\]\(|src=")docs/', r"\1", text).replace("](src/", "](../src/")
    for file, page in ROOT_PAGES.items():
        text = re.sub(rf"\]\((\.\./)?{file}", f"]({page}", text)
    source[0] = text.replace(recipe_keys.PLACE, recipe_keys.markdown()) if recipe_keys.PLACE in text else text


def setup(app: Any) -> None:
    """Prepare each page before it is read."""
    app.connect("source-read", prepare)
