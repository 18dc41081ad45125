"""Append-only log of descriptions, from which an interrupted `describe` resumes.

A hidden file beside the predictions holds one line of JSON per batch. Its first line holds
everything that descriptions depend on; a run that differs from it in anything starts over.
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
    """Append-only log of descriptions.

    Args:
        target: file that the predictions will be written to; the log is a hidden file beside it.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        target = Path(target)
        self.path = target.with_name(f".{target.name}.unfinished")

    def open(self, key: Mapping[str, Any]) -> list[Description]:
        """Open the log and return the descriptions of an interrupted run with the same key.

        Args:
            key: see `resume_key`.
        """
        header = json.dumps(key, sort_keys=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        descriptions: list[Description] = []
        if lines[:1] == [header]:
            for line in lines[1:]:
                try:
                    batch = [
                        Description(tuple(map(tuple, senses)), status)
                        for senses, status in json.loads(line)
                    ]
                except ValueError:  # the interruption came while this line was written
                    break
                descriptions += batch
        # written again without a broken last line
        with replacing(self.path) as temporary:
            temporary.write_text("\n".join([header, _to_line(descriptions), ""]), encoding="utf-8")
        return descriptions

    def append(self, descriptions: Sequence[Description]) -> None:
        """Append the descriptions of a batch; they are on disk when this returns."""
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(_to_line(descriptions) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def close(self) -> None:
        """Remove the log, once the predictions are written."""
        self.path.unlink(missing_ok=True)


def resume_key(
    spec: MethodSpec, options: Mapping[str, Any], seed: int, units: Sequence[Unit], data: str
) -> dict[str, Any]:
    """Return everything that descriptions depend on, as JSON.

    Args:
        spec, options, seed: spec, options and random seed of the method.
        units: keys of the units, in order.
        data: fingerprint of the units' dataset and of further inputs.
    """
    return {
        "method": spec.to_dict(),
        "options": {name: [str(value), _file_states(value)] for name, value in options.items()},
        "seed": seed,
        "units": hashlib.sha256("\n".join(map(str, units)).encode()).hexdigest(),
        "data": data,
    }


def _to_line(descriptions: Sequence[Description]) -> str:
    return json.dumps([(description.senses, description.status) for description in descriptions])


def _file_states(value: Any) -> list[tuple[str, int, int]]:
    """Return name, size and time of the files that an option names, such as a model's."""
    path = Path(str(value))
    try:
        if not path.exists():
            return []
    except OSError:  # a text that is too long for a file name
        return []
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
