"""Pages from templates. Everything is escaped; what cannot be seen is made visible."""

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
"""Stands in every page made here; only a folder of such pages is written over."""

# 'self' and file: are the folder that a page lies in, from a server and from a disk
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; "
    "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
)


@cache
def environment() -> Any:
    """Return the templates: autoescape on, an undefined name is an error."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(shown=visible_text, link=safe_link, three=three)
    made.globals.update(policy=POLICY, mark=MARK)
    return made


def render(template: str, /, *, root: str, here: str = "", **values: Any) -> str:
    """Return a page.

    Args:
        template: name in `templates/`.
        root: path from the page to the top of the site.
        here: part of the site that the page belongs to.
        values: what the template shows.
    """
    page: str = environment().get_template(template).render(root=root, here=here, **values)
    return page if page.endswith("\n") else page + "\n"


def inline(
    template: str, /, *, theme: str, style: str, scripts: Sequence[str], **values: Any
) -> str:
    """Return a page that holds its style and scripts; nothing else may run, nothing is fetched.

    Args:
        template: name in `templates/`.
        theme: script of the head.
        style: style sheet.
        scripts: of the end of the page; those with data are `text.script`, which hides `<`.
        values: what the template shows.
    """
    import markupsafe

    named = " ".join(_source(each) for each in (theme, *scripts))
    policy = (
        f"default-src 'none'; script-src {named}; style-src {_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page: str = (
        environment()
        .get_template(template)
        .render(
            **{**values, "policy": policy},
            theme=markupsafe.Markup(theme),  # noqa: S704 - our own files, and JSON without "<"
            style=markupsafe.Markup(style),  # noqa: S704
            scripts=[markupsafe.Markup(each) for each in scripts],  # noqa: S704
        )
    )
    return page


def _source(text: str) -> str:
    """Return what a content security policy calls an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def asset(name: str) -> str:
    """Return the text of a style sheet, script or icon."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")
