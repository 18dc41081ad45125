"""Third-party text made safe to show: no hidden characters, no code, no unusual file names.

Escaping is done by the templates (autoescape) and by the pages' scripts (`textContent`). This
module handles characters that need no escaping and still deceive, because they reorder, hide or
join the text beside them.
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

MAX_CHARACTERS = 2000
"""Most characters of a text that are shown; a longer text is cut and its length is added."""

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5"
"""Letters and marks that are invisible without being format characters in Unicode."""


def visible_text(text: object) -> str:
    """Return a text in which every character is visible: hidden characters are shown as codes.

    Right-to-left overrides, zero-width characters and controls become `⟨U+202E⟩`; line ends and
    tabs become spaces. Letters of any script are kept.

    Example:
        >>> visible_text("red\\u202e dots\\u200b" + chr(10) + "x")
        'red⟨U+202E⟩ dots⟨U+200B⟩ x'
    """
    whole = str(text)
    visible = whole[:MAX_CHARACTERS]
    if not visible.isascii() or not visible.isprintable():
        visible = "".join(map(_visible_character, visible))
    return visible if len(whole) <= MAX_CHARACTERS else f"{visible}… ({len(whole):,} characters)"


def _visible_character(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if character in _FILLERS or unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return f"⟨U+{ord(character):04X}⟩"
    return character


def slug(name: str) -> str:
    """Return a file name of letters, digits, dots and dashes; different names give different files.

    Example:
        >>> slug("nearest@1.0")
        'nearest-1.0'
        >>> slug("../../etc") == slug("....etc")
        False
    """
    simplified = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "x"
    plain = re.fullmatch(r"[a-z0-9]+([.@-][a-z0-9]+)*", name)
    if plain and len(name) <= 60 and not _is_device(simplified):
        return simplified
    # Other names may simplify to the same text, so a digest of the whole name is added.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{simplified}-{digest}"


def method_file(name: str, version: str | None) -> str:
    """Return the file name of a method's page."""
    return f"{slug(f'{name}@{version}' if version else name)}.html"


def track_file(track: Track) -> str:
    """Return the file name of a track's page."""
    return f"{track.slug if track.version else slug(track.name)}.html"


def _is_device(name: str) -> bool:
    """Return True for names that Windows reserves for devices."""
    return bool(re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name))


def safe_link(address: object) -> str | None:
    """Return a URL that a page may link to: http or https with a host; None for any other.

    Example:
        >>> safe_link("javascript:alert(1)"), safe_link("https://arxiv.org/abs/2201.11114")
        (None, 'https://arxiv.org/abs/2201.11114')
    """
    text = str(address).strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    is_web = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    return text if is_web else None


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a script, in a file or a page: without `<`, `>` and `&`.

    Example:
        >>> script_json({"a": "</script>"})
        '{"a":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
