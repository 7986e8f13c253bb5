"""How Sphinx makes a site of these pages: ``make docs``, into build/site."""

from __future__ import annotations

import inspect
import re
from typing import Any

import leo_core

project = "LEO"
author = "the authors of LEO"
version = release = leo_core.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "index"
# README.md is the front page on a forge; index.md takes it in and adds the list of pages
exclude_patterns = ["README.md", "**/.*"]

# the anchors of headings are those that forges make, so that one link works in both places
myst_heading_anchors = 4
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_google_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
viewcode_line_numbers = True

html_theme = "furo"
html_title = "LEO"
html_static_path = ["_static"]
html_css_files = ["leo.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5fa5", "color-brand-content": "#0b5fa5"},
    "dark_css_variables": {"color-brand-primary": "#7fc1ff", "color-brand-content": "#7fc1ff"},
}


def as_markup(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Let docstrings stay text that is read in an editor: |x| is no markup, and prose may follow the parameters."""
    text = "\n".join(_prose_first(lines))
    lines[:] = re.sub(r"``.*?``|[|]", lambda found: r"\|" if found[0] == "|" else found[0], text).split("\n")


def _prose_first(lines: list[str]) -> list[str]:
    """The same, with paragraphs behind a section's entries put before the section, where napoleon wants them."""
    heading = next((i for i, line in enumerate(lines) if i and re.fullmatch("-{4,}", line)), None)
    if heading is None:
        return lines
    before, section = lines[: heading - 1], "\n".join(lines[heading - 1 :]).strip("\n")
    blocks = section.split("\n\n")
    prose = [block for block in blocks[1:] if not block.startswith(" ") and "\n " not in block]
    entries = [block for block in blocks if block not in prose]
    return [*before, *"\n\n".join([*prose, *entries]).split("\n"), ""]


class Named:
    """A default shown by its name; as Python shows functions, with an address, no signature could be parsed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def name_defaults(_app: Any, thing: Any, _bound: bool) -> None:
    """Functions that are defaults of a function, by their names."""
    if not inspect.isfunction(thing):
        return
    signature = inspect.signature(thing)
    parameters = [
        one.replace(default=Named(one.default.__name__)) if inspect.isfunction(one.default) else one
        for one in signature.parameters.values()
    ]
    if parameters != [*signature.parameters.values()]:
        thing.__signature__ = signature.replace(parameters=parameters)


def setup(app: Any) -> None:
    app.connect("autodoc-before-process-signature", name_defaults)
    app.connect("autodoc-process-docstring", as_markup, priority=400)  # before napoleon's
