"""Answers on their way to a file: kept batch by batch, so that an interrupted run goes on.

A line of JSON a batch, in a hidden file beside the predictions. The first line says what was
asked; a run that is asked something else starts over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baselines.framework.method import Description, MethodSpec
from milannotations.schema import Unit
from milannotations.utils.files import replacing


class DescriptionLog:
    """Keeps answers in a file.

    Args:
        target: the file that the answers will be in: the journal stands beside it.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        target = Path(target)
        self.path = target.with_name(f".{target.name}.unfinished")

    def open(self, asked: Mapping[str, Any]) -> list[Description]:
        """Return the answers that an earlier run, asked the same, has given.

        Args:
            asked: what answers depend on, as JSON.
        """
        first = json.dumps(asked, sort_keys=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        answers: list[Description] = []
        if lines[:1] == [first]:
            for line in lines[1:]:
                try:
                    made = [Description(tuple(map(tuple, senses)), status)
                            for senses, status in json.loads(line)]  # fmt: skip
                except ValueError:  # the line that was being written
                    break
                answers += made
        with replacing(self.path) as temporary:
            temporary.write_text("\n".join([first, _line(answers), ""]), encoding="utf-8")
        return answers

    def add(self, answers: Sequence[Description]) -> None:
        """Keep the answers of a batch."""
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(_line(answers) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def close(self) -> None:
        """Remove the journal: the answers are in their file."""
        self.path.unlink(missing_ok=True)


def _line(answers: Sequence[Description]) -> str:
    return json.dumps([(answer.senses, answer.status) for answer in answers])


def resume_key(
    spec: MethodSpec, options: Mapping[str, Any], seed: int, units: Sequence[Unit], data: str
) -> dict[str, Any]:
    """Return what answers depend on, as JSON.

    Args:
        spec, options, seed: of the method.
        units: in order.
        data: what tells the units' data set from another.
    """
    return {
        "method": spec.to_dict(),
        "options": {name: [str(value), _state(value)] for name, value in options.items()},
        "seed": seed,
        "units": hashlib.sha256("\n".join(map(str, units)).encode()).hexdigest(),
        "data": data,
    }


def _state(value: Any) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of the files that an option names, a model's for instance."""
    path = Path(str(value))
    try:
        if not path.exists():
            return []
    except OSError:  # a text that is too long for a name
        return []
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files]
