"""Pictures of data sets that the library `datasets` reads."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, did_you_mean, some
from milannotations.exemplars.images.decode import IMAGE_KEYS, decode_rgb, explain_read_errors
from milannotations.exemplars.images.folder import listing_digest

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".parquet", ".arrow")


class HfDatasetSource:
    """The pictures of one column of a `datasets.Dataset`.

    They are decoded here: `datasets` would turn those with an orientation tag.

    Args:
        rows: the data set.
        column: of pictures; None finds it.
        said: name, split and so on, for a record.

    Raises:
        InputError: no such column, or none of pictures.
    """

    def __init__(self, rows: Any, column: str | None, said: Mapping[str, Any]) -> None:
        import datasets

        self.column = _column(rows.features, column)
        narrow = rows.select_columns([self.column])
        self.rows = narrow.cast_column(self.column, datasets.Image(decode=False))
        if not len(self.rows):
            raise InputError(f"The data set {said.get('name', '')} has no rows.")
        self.said = {**said, "column": self.column}

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, place: int) -> Image.Image:
        value = self.rows[place][self.column]
        with explain_read_errors(self.source_id(place)):
            if value is None:
                raise ValueError("there is no picture in this row")
            if value["bytes"] is not None:
                return decode_rgb(io.BytesIO(value["bytes"]))
            with open(value["path"], "rb") as stream:
                return decode_rgb(stream)

    def source_id(self, place: int) -> str:
        return str(place)

    def describe(self, places: Sequence[int]) -> dict[str, Any]:
        return dict(self.said)


def is_dataset_folder(folder: Path) -> bool:
    """Say whether a folder is a data set of `datasets` rather than one of pictures."""
    names = set(os.listdir(folder))
    if "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= names:
        return True
    level, first = [folder], None
    for _ in range(3):
        # a class folder may hold a million pictures: the first few say what it is
        seen = [each for at in level for each in islice(os.scandir(at), first)]
        if any(each.name.endswith(SUFFIXES) and Path(each).stem != "metadata" for each in seen):
            return True
        level, first = [Path(each) for each in seen if each.is_dir()], 20
    return False


def is_dataset_object(source: Any) -> bool:
    """Say whether an object is a data set that `datasets` opened."""
    return type(source).__module__.partition(".")[0] == "datasets"


def open_dataset(
    name: str, *, split: str | None, column: str | None, config: str | None
) -> HfDatasetSource:
    """Return the pictures of a folder of `save_to_disk` or parquet, a file, or a name on the hub.

    Raises:
        InputError: there is none; it cannot be opened; several splits, and none said.
    """
    path = Path(name).expanduser()
    local = path.exists()
    if not local and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(f"No such folder of pictures: {name}")
    if path.is_file() and path.suffix not in SUFFIXES:
        raise InputError(f"{name} is a file; expected a folder of pictures, or a parquet file.")
    import datasets

    try:
        if path.is_dir() and _is_saved(path):
            found = datasets.load_from_disk(str(path))
        elif path.is_file():
            found = datasets.load_dataset(path.suffix[1:], data_files=str(path))
        else:
            found = datasets.load_dataset(str(path) if local else name, config)
    except Exception as error:  # of datasets, the hub, pyarrow, the network
        why = " ".join(str(error).split())[:300] or type(error).__name__
        if local:
            raise InputError(f"datasets cannot open {name}: {why}") from error
        raise InputError(
            f"No such folder of pictures: {name}; and no data set of that name could be had "
            f"from the hub ({why})."
        ) from error
    said: dict[str, Any] = {"name": name, "kind": "dataset", "sha256": None}
    if local:
        said["name"] = os.path.basename(os.path.abspath(path))
        said["sha256"] = listing_digest(*_files(path))
    if config:
        said["config"] = config
    return from_dataset(found, split=split, column=column, said=said)


def from_dataset(
    found: Any, *, split: str | None, column: str | None, said: Mapping[str, Any] | None = None
) -> HfDatasetSource:
    """Return the pictures of a `Dataset`, or of one split, or several (`a+b`), of a `DatasetDict`.

    Raises:
        InputError: no such split; several, and none said; a data set that is read as a stream.
    """
    import datasets

    said = dict(said or {"name": type(found).__name__, "kind": "dataset", "sha256": None})
    if isinstance(found, Mapping):
        splits = list(found)
        if split is None and len(splits) > 1:
            raise InputError(
                f"{said['name']} has the splits {', '.join(splits)}. Say which: --split "
                f"{splits[0]}, or --split {'+'.join(splits)}."
            )
        wanted = split.split("+") if split else splits
        for each in wanted:
            if each not in splits:
                raise InputError(
                    f"{said['name']} has no split '{each}'.{did_you_mean(each, splits)} "
                    f"Splits: {', '.join(splits)}."
                )
        said["split"] = "+".join(wanted)
        parts = [found[each] for each in wanted]
        found = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    elif split is not None and str(getattr(found, "split", None)) != split:
        raise InputError(f"{said['name']} has no splits; '{split}' was asked for.")
    if not isinstance(found, datasets.Dataset):
        raise InputError(
            f"A {type(found).__name__} was given; expected a datasets.Dataset, whose items can be "
            "had by place."
        )
    return HfDatasetSource(found, column, said)


def _column(features: Mapping[str, Any], column: str | None) -> str:
    import datasets

    fits = [
        name
        for name, kind in features.items()
        if isinstance(kind, datasets.Image)
        or (isinstance(kind, dict) and set(kind) == {"bytes", "path"})
    ]
    if column is not None:
        if column in fits:
            return column
        raise InputError(
            f"Column '{column}' holds no pictures (columns that do: {', '.join(fits) or 'none'})."
        )
    usual = [name for name in fits if len(fits) == 1 or name in IMAGE_KEYS]
    if usual:
        return min(usual, key=lambda name: IMAGE_KEYS.index(name) if name in IMAGE_KEYS else 0)
    if fits:
        raise InputError(
            f"Several columns hold pictures: {', '.join(fits)}. Say which: open_images(..., "
            f"column='{fits[0]}')."
        )
    raise InputError(
        "No column of the data set holds pictures: "
        f"{some([f'{name} ({type(kind).__name__})' for name, kind in features.items()], 8)}. "
        "Expected one of the feature Image, a picture in each row."
    )


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _files(path: Path) -> tuple[Path, list[str]]:
    """Return a folder and the data files in it."""
    if path.is_file():
        return path.parent, [path.name]
    found = [
        os.path.relpath(os.path.join(at, file), path)
        for at, _, files in os.walk(path, followlinks=True)
        for file in files
        if file.endswith(SUFFIXES)
    ]
    return path, found
