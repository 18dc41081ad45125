"""Checkpoints of a pass: the state of each process, and the batches that it contains.

    FOLDER/
      asked.json              inputs and settings of the pass
      rank-0-of-2.pt, ...     state of a process, and the numbers of its batches
      stopped                 present once a process has reported that the pass stopped

A file is replaced as a whole. The batches of two files never overlap, unless one file holds all
batches of the other, which is then a leftover. Hence files that another number of processes wrote
can be merged, and no batch is counted twice, wherever writing was interrupted.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

from milannotations.editions.resumable import explain_full_disk
from milannotations.errors import InputError
from milannotations.exemplars import distributed
from milannotations.utils.files import replacing

KEPT = "The results up to the last checkpoint are kept: make room"
"""Beginning of the advice when the disk is full during a pass."""

_FILE = re.compile(r"rank-(\d+)-of-\d+\.pt")


class Resumable(distributed.Mergeable, Protocol):
    """Work that can be resumed: mergeable state, and a fingerprint of inputs and settings."""

    def fingerprint(self) -> dict[str, Any]: ...


class StoppedError(InputError):
    """Error of a process that stops because another process of the pass is gone.

    Attributes:
        is_first: whether this process is the first to report it.
    """

    def __init__(self, message: str, *, is_first: bool) -> None:
        super().__init__(message)
        self.is_first = is_first


class Checkpoint:
    """Checkpoint files of one process in a folder.

    Args:
        folder: created if it does not exist; None writes nothing.
        work: the pass.
        group: this process.
        every: seconds between two checkpoints.
    """

    def __init__(
        self, folder: Path | None, work: Resumable, group: distributed.Group, every: float
    ) -> None:
        self.folder, self.work, self.group, self.every = folder, work, group, every
        self._batches: set[int] = set()  # those that `work` contains in this process
        self._written = time.monotonic()
        self._merged: list[Path] = []  # files of earlier runs whose state `work` contains now

    @property
    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / f"rank-{self.group.rank}-of-{self.group.world}.pt"

    def load(self) -> set[int]:
        """Merge the checkpoint files into the work of the processes.

        A checkpoint of another network, dataset or settings is discarded.

        Returns:
            Numbers of the batches that some process's work contains.

        Raises:
            InputError: a file is damaged; the disk is full.
        """
        if self.folder is None:
            return set()
        # through JSON, which turns tuples into lists, as in the file
        fingerprint = json.loads(json.dumps(self.work.fingerprint()))
        with explain_full_disk(self.folder, KEPT):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.group.rank == 0 and _read_fingerprint(self.folder) != fingerprint:
                shutil.rmtree(self.folder)
                self.folder.mkdir()
                with replacing(self.folder / "asked.json") as temporary:
                    temporary.write_text(json.dumps(fingerprint, indent=1))
        if self.group.rank == 0:
            (self.folder / "stopped").unlink(missing_ok=True)
        # barrier: no process lists the files before rank 0 has discarded the outdated ones
        distributed.gathered(None, self.group)
        states = [(path, _read(path)) for path in sorted(self.folder.glob("rank-*.pt"))]
        # Largest first: a file that repeats the batches of an earlier one is a leftover of a run
        # that merged it and stopped before it was removed. All processes decide alike.
        states.sort(key=lambda entry: (-len(entry[1]["batches"]), entry[0].name))
        seen: set[int] = set()
        leftovers = []
        for path, state in states:
            numbers = set(state["batches"])
            if numbers <= seen:
                leftovers.append(path)
                continue
            seen |= numbers
            # a file belongs to the process of its rank, or, with fewer processes now, of the
            # remainder: each file is merged by exactly one process
            match = _FILE.fullmatch(path.name)
            if match and int(match[1]) % self.group.world == self.group.rank:
                self._batches |= numbers
                self.work.merge_state(state["work"])
                if path != self._path:
                    self._merged.append(path)
        # barrier: no process writes or removes files before all have read them
        shares = distributed.gathered(sorted(self._batches), self.group)
        for path in leftovers:
            path.unlink(missing_ok=True)
        return {number for share in shares for number in share}

    def record(self, number: int) -> None:
        """Record that the work contains a batch, and write a checkpoint if one is due."""
        self._batches.add(number)
        if self.folder is not None and time.monotonic() - self._written >= self.every:
            self._write()

    def close(self) -> None:
        """Write a checkpoint: the pass is over, but what follows may still be interrupted."""
        if self.folder is not None:
            self._write()

    def stopped_error(self, batches: int) -> StoppedError:
        """Return the error of a pass over `batches` batches that cannot continue."""
        is_first = True
        if self.folder is not None:
            try:
                # creating a file succeeds in one process alone
                (self.folder / "stopped").touch(exist_ok=False)
            except FileExistsError:
                is_first = False
        return StoppedError(
            f"Another process of the pass stopped or died, so this one ({self.group.rank} of "
            f"{self.group.world}) stopped too, after {len(self._batches):,} of {batches:,} "
            "batches. Run the same command again to resume.",
            is_first=is_first,
        )

    def _write(self) -> None:
        state = {"batches": sorted(self._batches), "work": self.work.state_dict()}
        with explain_full_disk(self._path.parent, KEPT), replacing(self._path) as temporary:
            _save(state, temporary)
        # Only now: their batches are in this file. Interrupted in between, both files exist, and
        # the next run recognises the older ones as leftovers.
        for path in self._merged:
            path.unlink(missing_ok=True)
        self._merged = []
        self._written = time.monotonic()


def _read_fingerprint(folder: Path) -> Any:
    """Return the fingerprint of a folder's checkpoint; None where there is none."""
    try:
        return json.loads((folder / "asked.json").read_text())
    except (OSError, ValueError):
        return None


def _save(state: dict[str, Any], path: Path) -> None:
    """Write a state.

    Raises:
        OSError: as from the system, such as a full disk; torch turns it into a RuntimeError.
    """
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
    """Return the state in a checkpoint file.

    Raises:
        InputError: the file is damaged.
    """
    import torch

    try:
        # mapped, not read: of other processes' files only the numbers of batches are needed
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise InputError(
            f"{path} is damaged: {str(error).splitlines()[0]} Remove it and run the command again."
        ) from error
