"""Text of strangers, made safe to show: nothing invisible, nothing that runs, no odd file names.

Escaping is the templates' (autoescape) and the pages' (`textContent`). What is here concerns
characters that escape nothing and still deceive: they reorder, hide or join what stands beside.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from leaderboard.ranking.tracks import Track

LONGEST = 2000
"""Characters of a text that are shown; a longer one ends in its number of characters."""

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5"
"""Letters and marks that show nothing and are no format characters to Unicode."""


def visible_text(text: object) -> str:
    """Return a text whose characters can all be seen: controls and format characters as codes.

    Right-to-left overrides, zero-width characters and controls become `⟨U+202E⟩`; line ends and
    tabs become spaces. Letters of any script stay as they are.

    Example:
        >>> shown("red\\u202e dots\\u200b" + chr(10) + "x")
        'red⟨U+202E⟩ dots⟨U+200B⟩ x'
    """
    whole = str(text)
    cut = whole[:LONGEST]
    if not cut.isascii() or not cut.isprintable():
        cut = "".join(map(_visible, cut))
    return cut if len(whole) <= LONGEST else f"{cut}… ({len(whole):,} characters)"


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if character in _FILLERS or unicodedata.category(character) in _HIDDEN:
        return f"⟨U+{ord(character):04X}⟩"
    return character


def slug(name: str) -> str:
    """Return a name for a file: letters, digits, dots and dashes; another name, another file.

    Example:
        >>> slug("nearest@1.0")
        'nearest-1.0'
        >>> slug("../../etc") == slug("....etc")
        False
    """
    made = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "x"
    plain = re.fullmatch(r"[a-z0-9]+([.@-][a-z0-9]+)*", name)
    if plain and len(name) <= 60 and not _is_device(made):
        return made
    return f"{made}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def method_file(name: str, version: str | None) -> str:
    """Return the file name of the page of a method."""
    return f"{slug(f'{name}@{version}' if version else name)}.html"


def track_file(track: Track) -> str:
    """Return the file name of the page of a table."""
    return f"{track.slug if track.version else slug(track.name)}.html"


def _is_device(name: str) -> bool:
    """Say whether a name is one that Windows keeps for itself."""
    return bool(re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name))


def safe_link(address: object) -> str | None:
    """Return an address that a page may link to: http or https with a host; None for any other.

    Example:
        >>> link("javascript:alert(1)"), link("https://arxiv.org/abs/2201.11114")
        (None, 'https://arxiv.org/abs/2201.11114')
    """
    text = str(address).strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    named = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    return text if named else None


def script_json(value: Any) -> str:
    """Return JSON that may stand inside a script, of a file or of a page: no `<`, `>` or `&`.

    Example:
        >>> script({"a": "</script>"})
        '{"a":"\\\\u003c/script\\\\u003e"}'
    """
    made = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        made = made.replace(character, f"\\u{ord(character):04x}")
    return made
