"""Resumable writing of a config, hidden from readers until it is complete."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from milannotations.editions.card import write_card
from milannotations.editions.contents import PREPARED
from milannotations.errors import InputError
from milannotations.utils.files import read_json, sha256, write_json


@contextmanager
def explain_full_disk(
    out: Path, kept: str = "The layers that were finished are kept: make room"
) -> Iterator[None]:
    """Turn a full disk into an InputError that says what to do.

    Args:
        out: folder that is written to.
        kept: what stays, and what to do before running the command again.

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


class UnfinishedConfig:
    """Hidden folder in which a config is written: `journal.json`, `whole/`, `before/`.

    `whole` becomes the config in one rename. A config that it replaces waits in `before`.

    Args:
        out: folder of the edition.
        network: name of the config.
        asked: inputs and settings; an earlier run is resumed only if it had the same.
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
        # an earlier run may have been killed between any two steps of `install`
        if self.before.exists() and not self.target.exists():
            self.before.rename(self.target)  # between its two renames
        if self.target.exists() and not self.whole.exists() and not self._journal():
            shutil.rmtree(self.folder, ignore_errors=True)  # while the folder was being removed

    def is_installed(self) -> bool:
        """Return whether an earlier run stopped after the config was in place."""
        prepared = read_json(self.target / PREPARED)
        same = {name: prepared.get(name) for name in self.asked} == self.asked
        return same and self._is_same_run() and not self.whole.exists()

    def _is_same_run(self) -> bool:
        journal = self._journal()
        return {name: journal.get(name) for name in ("asked", "stamp")} == {
            "asked": self.asked,
            "stamp": self._stamp,
        }

    def _journal(self) -> dict[str, Any]:
        try:
            return read_json(self.folder / "journal.json")
        except InputError:
            return {}

    def begin(self) -> None:
        """Take over the intact layers of an earlier run with the same inputs; drop all else."""
        if self._is_same_run():
            for layer, shards in self._journal()["layers"].items():
                digests = {self.whole / name: digest for name, digest in shards.items()}
                if all(path.is_file() and sha256(path) == d for path, d in digests.items()):
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
    def checksums(self) -> dict[str, str]:
        """The sha256 of every shard of the finished layers, in order."""
        return {name: digest for shards in self.layers.values() for name, digest in shards.items()}

    def record_layer(self, layer: str, names: list[str]) -> None:
        """Record a finished layer and its shards in the journal."""
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
        write_card(self.out)
        self.clear()

    def clear(self) -> None:
        """Remove the hidden folder."""
        shutil.rmtree(self.folder)


@contextmanager
def hold_lock(out: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file in `out`, made if it is missing; the system releases it with the process.

    Args:
        out: folder to lock.
        what: name of what is written there; other names have other locks.
        wait: wait for another holder.

    Raises:
        InputError: another process holds it, and `wait` is False.
    """
    from filelock import FileLock, Timeout

    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f".{what.replace(' ', '-')}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise InputError(
            f"Another process ({_holder(path)}) is preparing {what} in {out}. Wait until it is "
            "done, or give another --out."
        ) from None
    try:
        with suppress(PermissionError):  # Windows lets nobody write to a locked file
            path.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        # Remove the file while it is held: a process that waits for it sees that it is gone and
        # makes a new one. Removed after the release, it could be the file of the next holder.
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        lock.release()
        if is_new:
            with suppress(OSError):  # it holds something by now
                out.rmdir()


def _holder(path: Path) -> str:
    """Return the process id in a lock file."""
    try:
        return path.read_text(encoding="ascii")[:20].strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"
