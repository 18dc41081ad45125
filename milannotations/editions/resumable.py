"""A config that is being made: kept over interruptions, never opened half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from milannotations.editions import card
from milannotations.errors import InputError
from milannotations.utils.files import replacing, sha256


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as JSON, whole or not at all, its keys in their order."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextmanager
def roomy(
    out: Path, kept: str = "The layers that were finished are kept: make room"
) -> Iterator[None]:
    """Say it when the disk is full while something is made.

    Raises:
        InputError: no space is left in `out`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"No space is left in {out}. {kept} and run the same command again."
        ) from error


class Work:
    """The hidden folder in which a config is made: `journal.json`, `whole/`, `before/`.

    `whole` becomes the config in one rename. A config that it replaces waits in `before`.

    Args:
        out: the edition.
        network: the config.
        asked: what is made of what; an earlier run goes on only if it was asked the same.
        stamp: digest of the source's state.

    Attributes:
        whole: the folder to write shards into.
        layers: finished layers, each with its shards and their sha256.
    """

    def __init__(self, out: Path, network: str, asked: dict[str, Any], stamp: str) -> None:
        self.out, self.target = out, out / network
        self.asked, self.settings = asked, asked["settings"]
        self.folder = out / f".{network}.unfinished"
        self.whole, self.before = self.folder / "whole", self.folder / "before"
        self.layers: dict[str, dict[str, str]] = {}
        self._stamp = stamp
        if self.before.exists() and not self.target.exists():
            self.before.rename(self.target)  # stopped between two renames
        if self.target.exists() and not self.whole.exists() and not self._journal():
            shutil.rmtree(self.folder, ignore_errors=True)  # stopped while it was cleared away

    def is_installed(self) -> bool:
        """Say whether an earlier run stopped after the config was in place."""
        made = card.read_json(self.target / card.PREPARED)
        same = {name: made.get(name) for name in self.asked} == self.asked
        return same and self._is_same_run() and not self.whole.exists()

    def _is_same_run(self) -> bool:
        journal = self._journal()
        return {name: journal.get(name) for name in ("asked", "stamp")} == {
            "asked": self.asked,
            "stamp": self._stamp,
        }

    def _journal(self) -> dict[str, Any]:
        try:
            return card.read_json(self.folder / "journal.json")
        except InputError:
            return {}

    def begin(self) -> None:
        """Take over the layers that an earlier run finished, and drop all else."""
        if self._is_same_run():
            for layer, shards in self._journal()["layers"].items():
                files = {self.whole / name: digest for name, digest in shards.items()}
                if all(path.is_file() and sha256(path) == sum_ for path, sum_ in files.items()):
                    self.layers[layer] = shards
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        self.whole.mkdir(parents=True, exist_ok=True)
        kept = {name for shards in self.layers.values() for name in shards}
        for path in self.whole.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._save()

    @property
    def sums(self) -> dict[str, str]:
        """The sha256 of every shard of the finished layers, in order."""
        return {name: digest for shards in self.layers.values() for name, digest in shards.items()}

    def keep(self, layer: str, names: list[str]) -> None:
        """Note a finished layer."""
        self.layers[layer] = {name: sha256(self.whole / name) for name in names}
        self._save()

    def _save(self) -> None:
        write_json(
            self.folder / "journal.json",
            {"asked": self.asked, "stamp": self._stamp, "layers": self.layers},
        )

    def install(self) -> None:
        """Rename the whole config into place and write the card."""
        if self.whole.exists():
            if self.target.exists():
                self.target.rename(self.before)
            self.whole.rename(self.target)
        card.write(self.out)
        self.clear()

    def clear(self) -> None:
        """Remove the hidden folder."""
        shutil.rmtree(self.folder)


@contextmanager
def alone(out: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file in `out`; the system lets go of it when the process dies.

    Raises:
        InputError: another process holds it, and `wait` is False.
    """
    if sys.platform == "win32":  # no such locks
        yield
        return
    import fcntl

    out.mkdir(parents=True, exist_ok=True)
    path = out / f".{what.replace(' ', '-')}.lock"
    while True:
        stream = path.open("a+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read(20).strip() or "unknown"
            stream.close()
            raise InputError(
                f"Another process ({holder}) is preparing {what} in {out}. Wait until it is done, "
                "or give another --out."
            ) from None
        try:
            if path.stat().st_ino == os.fstat(stream.fileno()).st_ino:
                break
        except FileNotFoundError:
            pass
        stream.close()  # its holder removed it while we waited
    try:
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        stream.close()
        if not any(out.iterdir()):
            out.rmdir()
