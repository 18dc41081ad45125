"""Rendering of pages from templates, with escaping and without hidden characters."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from leaderboard.site.cells import three
from leaderboard.site.safe_text import safe_link, visible_text

HERE = Path(__file__).parent
ASSETS = ("board.css", "icon.svg", "table.js", "theme.js", "units.js")
MARK = "milan board"
"""Generator name in every page; only a folder with such a page is replaced."""

# 'self' covers a page on a server, and file: a page on a disk: scripts may come from nowhere else.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; "
    "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
)


@cache
def environment() -> Any:
    """Return the template environment: autoescape is on, and undefined names are errors."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(visible=visible_text, link=safe_link, three=three)
    templates.globals.update(policy=POLICY, mark=MARK)
    return templates


def render(template: str, /, *, root: str, here: str = "", **values: Any) -> str:
    """Render a page of the site.

    Args:
        template: file name in `templates/`.
        root: relative path from the page to the root of the site.
        here: part of the site that the page belongs to.
        values: values for the template.
    """
    page: str = environment().get_template(template).render(root=root, here=here, **values)
    return page if page.endswith("\n") else page + "\n"


def inline(
    template: str, /, *, theme: str, style: str, scripts: Sequence[str], **values: Any
) -> str:
    """Render a self-contained page: its policy allows only its own scripts and style.

    Args:
        template: file name in `templates/`.
        theme: script for the head of the page.
        style: style sheet.
        scripts: scripts for the end of the page; data go through `safe_text.script_json`.
        values: values for the template.
    """
    import markupsafe

    sources = " ".join(_source(script) for script in (theme, *scripts))
    policy = (
        f"default-src 'none'; script-src {sources}; style-src {_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page: str = (
        environment()
        .get_template(template)
        .render(
            **{**values, "policy": policy},
            theme=markupsafe.Markup(theme),  # noqa: S704 - our own files, and JSON without "<"
            style=markupsafe.Markup(style),  # noqa: S704
            scripts=[markupsafe.Markup(script) for script in scripts],  # noqa: S704
        )
    )
    return page


def _source(text: str) -> str:
    """Return the source expression of an inline script or style in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def asset(name: str) -> str:
    """Return the text of a style sheet, script or icon."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")
