"""A pass that can be taken up again: what each process has seen, and of which batches.

    FOLDER/
      asked.json              what the pass is of what
      rank-0-of-2.pt, ...     a process's tallies, and the numbers of its batches

A file is replaced whole. The batches of two files never overlap, unless one holds all that the
other holds, which is then a left-over: so files of another number of processes can be merged
and nothing is counted twice, wherever that is interrupted.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.editions.resumable import explain_full_disk
from milannotations.errors import InputError
from milannotations.exemplars import distributed
from milannotations.utils.files import replacing

if TYPE_CHECKING:
    from milannotations.exemplars.engine import Pass

KEPT = "What was seen up to the last checkpoint is kept: make room"

_FILE = re.compile(r"rank-(\d+)-of-\d+\.pt")


class StoppedError(InputError):
    """Another process of the pass is gone, and this one was asked to stop.

    `is_first` says whether this process is the first to say so.
    """

    def __init__(self, message: str, *, is_first: bool) -> None:
        super().__init__(message)
        self.is_first = is_first


class Checkpoint:
    """Keeps a pass in a folder; with None it keeps nothing.

    Args:
        folder: made if it is not there.
        work: the pass.
        group: this process.
        every: seconds between two writings.
    """

    def __init__(
        self, folder: Path | None, work: Pass, group: distributed.Group, every: float
    ) -> None:
        self.folder, self.work, self.group, self.every = folder, work, group, every
        self._own: set[int] = set()
        self._kept = time.monotonic()
        self._merged: list[Path] = []

    @property
    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / f"rank-{self.group.rank}-of-{self.group.world}.pt"

    def load(self) -> set[int]:
        """Take up what is there, and return the numbers of the batches done by all processes.

        What is of another model, other images or settings is thrown away.

        Raises:
            InputError: a file is damaged; the disk is full.
        """
        if self.folder is None:
            return set()
        asked = json.loads(json.dumps(self.work.asked()))
        with explain_full_disk(self.folder, KEPT):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.group.rank == 0 and _asked(self.folder) != asked:
                shutil.rmtree(self.folder)
                self.folder.mkdir()
                with replacing(self.folder / "asked.json") as temporary:
                    temporary.write_text(json.dumps(asked, indent=1))
        if self.group.rank == 0:
            (self.folder / "stopped").unlink(missing_ok=True)
        distributed.gathered(None, self.group)  # nobody reads before that
        found = [(path, _read(path)) for path in sorted(self.folder.glob("rank-*.pt"))]
        found.sort(key=lambda each: (-len(each[1]["batches"]), each[0].name))
        kept: set[int] = set()
        leftovers = []
        for path, state in found:
            numbers = set(state["batches"])
            if numbers <= kept:
                leftovers.append(path)
                continue
            kept |= numbers
            match = _FILE.fullmatch(path.name)
            if match and int(match[1]) % self.group.world == self.group.rank:
                self._own |= numbers
                self.work.add(state["work"])
                if path != self._path:
                    self._merged.append(path)
        shares = distributed.gathered(
            sorted(self._own), self.group
        )  # and nobody writes before that
        for path in leftovers:
            path.unlink(missing_ok=True)
        return {number for share in shares for number in share}

    def done(self, number: int) -> None:
        """Note a batch, and write everything if it is time."""
        self._own.add(number)
        if self.folder is not None and time.monotonic() - self._kept >= self.every:
            self._write()

    def close(self) -> None:
        """Write everything: the pass is over, what follows may still be interrupted."""
        if self.folder is not None:
            self._write()

    def stopped(self, batches: int) -> StoppedError:
        """Return what is to be said of a pass of so many batches that cannot go on."""
        is_first = True
        if self.folder is not None:
            try:
                (self.folder / "stopped").touch(exist_ok=False)
            except FileExistsError:
                is_first = False
        return StoppedError(
            f"Another process of the pass stopped or died, and this one ({self.group.rank} of "
            f"{self.group.world}) stopped too, with {len(self._own):,} of {batches:,} batches "
            "of its own seen. Run the same command again: it goes on from there.",
            is_first=is_first,
        )

    def _write(self) -> None:
        state = {"batches": sorted(self._own), "work": self.work.state_dict()}
        with explain_full_disk(self._path.parent, KEPT), replacing(self._path) as temporary:
            _save(state, temporary)
        for path in self._merged:  # its batches are in this file now
            path.unlink(missing_ok=True)
        self._merged = []
        self._kept = time.monotonic()


def _asked(folder: Path) -> Any:
    try:
        return json.loads((folder / "asked.json").read_text())
    except (OSError, ValueError):
        return None


def _save(state: dict[str, Any], path: Path) -> None:
    """Write a state, and raise what the system says: torch makes a RuntimeError of it."""
    import torch

    with path.open("wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            raise cause or error from None


def _read(path: Path) -> dict[str, Any]:
    import torch

    try:
        # mapped, not read: of the files of other processes only the batches are wanted
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise InputError(
            f"{path} is damaged: {str(error).splitlines()[0]} Remove it and run the command again."
        ) from error
