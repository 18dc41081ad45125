"""Pages from templates. Everything is escaped; what cannot be seen is made visible."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from leaderboard.board.rows import three
from leaderboard.board.text import link, shown

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
    made.filters.update(shown=shown, link=link, three=three)
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


def asset(name: str) -> str:
    """Return the text of a style sheet, script or icon."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")
