"""Lock file of downloads: size and sha256 of every published file that was seen.

No checksum of these files was ever published, so the first download is trusted and written into
the lock file. From then on another file under the same name is an error: share the lock file, and
everyone has the same bytes.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from milannotations.errors import InputError
from milannotations.utils.files import check_is_file, replacing

LOCK = "milannotations.lock.json"
"""Name of the lock file, in the folder of the downloads."""


@dataclass(frozen=True)
class Pin:
    """Expected content of a published file.

    Attributes:
        url: where it came from; None if it was put there by hand.
        size: in bytes.
        sha256: of its bytes, hexadecimal.
    """

    url: str | None
    size: int
    sha256: str


def pins(lock: str | os.PathLike[str]) -> dict[str, Pin]:
    """Return the pins of a lock file by file name; none if there is no lock file.

    Raises:
        InputError: the file is damaged.
    """
    if not Path(lock).exists():
        return {}
    try:
        content = json.loads(check_is_file(lock).read_text(encoding="utf-8"))
        entries = {str(name): Pin(**entry) for name, entry in content["archives"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{lock} is not a lock file of archives ({error}). Repair it, or remove it to record "
            "the archives again."
        ) from None
    for name, pin in entries.items():
        typed = isinstance(pin.size, int) and isinstance(pin.sha256, str)
        if not typed or not re.fullmatch(r"[0-9a-f]{64}", pin.sha256):
            raise InputError(
                f"{lock}: {name} needs a size (a whole number of bytes) and a sha256 "
                f"(64 digits 0-9a-f); got {pin.size!r} and {pin.sha256!r}."
            )
    return entries


def record_pin(lock: Path, name: str, pin: Pin) -> None:
    """Add a pin to a lock file, which other processes may be writing at the same time."""
    import filelock

    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock.with_name(f".{lock.name}.lock")):
        entries = {**pins(lock), name: pin}
        content = {"archives": {key: asdict(entries[key]) for key in sorted(entries)}}
        with replacing(lock) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
