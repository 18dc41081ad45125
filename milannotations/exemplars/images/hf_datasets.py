"""Images of datasets that the library `datasets` reads."""

from __future__ import annotations

import io
import os
import re
import warnings
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
"""Suffixes of data files."""


class HfDatasetSource:
    """Images of one column of a `datasets.Dataset`.

    They are decoded here, because `datasets` rotates images by their orientation tag.

    Args:
        dataset: the dataset.
        column: column of images; None to find it.
        record: name, split and so on, for a record.

    Raises:
        InputError: no such column, or none of images; no rows.
    """

    def __init__(self, dataset: Any, column: str | None, record: Mapping[str, Any]) -> None:
        import datasets

        self.column = _image_column(dataset.features, column)
        if dataset.format["type"] is not None:
            # set by `with_transform` and `with_format`: rows would come as something else
            if dataset.format["type"] == "custom":
                warnings.warn(
                    "The transform of the dataset is not applied: its images go through the "
                    "network's preprocessing.",
                    stacklevel=2,
                )
            dataset = dataset.with_format(None)
        encoded = dataset.select_columns([self.column])
        self.rows = encoded.cast_column(self.column, datasets.Image(decode=False))
        if not len(self.rows):
            raise InputError(f"The dataset {record.get('name', '')} has no rows.")
        self.record = {**record, "column": self.column}

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Image.Image:
        image = self.rows[index][self.column]
        with explain_read_errors(self.source_id(index)):
            if image is None:
                raise ValueError("there is no image in this row")
            if image["bytes"] is not None:
                return decode_rgb(io.BytesIO(image["bytes"]))
            with open(image["path"], "rb") as stream:
                return decode_rgb(stream)

    def source_id(self, index: int) -> str:
        return str(index)

    def describe(self, indices: Sequence[int]) -> dict[str, Any]:
        return dict(self.record)


def is_dataset_folder(folder: Path) -> bool:
    """Return whether a folder holds a dataset of `datasets` rather than image files."""
    names = set(os.listdir(folder))
    if "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= names:
        return True
    # Data files may lie up to two levels down, one folder per split or config.
    level, most = [folder], None
    for _ in range(3):
        # a class folder may hold a million images, so only a few of its entries are looked at
        entries = [entry for path in level for entry in islice(os.scandir(path), most)]
        if any(e.name.endswith(SUFFIXES) and Path(e).stem != "metadata" for e in entries):
            return True
        level, most = [Path(entry) for entry in entries if entry.is_dir()], 20
    return False


def is_dataset_object(source: Any) -> bool:
    """Return whether an object is a dataset that `datasets` opened."""
    return type(source).__module__.partition(".")[0] == "datasets"


def open_dataset(
    name: str, *, split: str | None, column: str | None, config: str | None
) -> HfDatasetSource:
    """Open the images of a dataset of `datasets`.

    Args:
        name: folder that `save_to_disk` wrote or of parquet files, a file, or a name on the hub.
        split: see `exemplars.open_images`.
        column: see `exemplars.open_images`.
        config: see `exemplars.open_images`.

    Raises:
        InputError: no such dataset; it cannot be opened; several splits, and none chosen.
    """
    path = Path(name).expanduser()
    is_local = path.exists()
    if not is_local and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(f"No such folder of images: {name}")
    if path.is_file() and path.suffix not in SUFFIXES:
        raise InputError(f"{name} is a file; expected a folder of images, or a parquet file.")
    import datasets

    try:
        if path.is_dir() and _is_saved(path):
            dataset = datasets.load_from_disk(str(path))
        elif path.is_file():
            dataset = datasets.load_dataset(path.suffix[1:], data_files=str(path))
        else:
            dataset = datasets.load_dataset(str(path) if is_local else name, config)
    except Exception as error:  # of datasets, the hub, pyarrow, the network
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if is_local:
            raise InputError(f"datasets cannot open {name}: {reason}") from error
        raise InputError(
            f"No such folder of images: {name}. No dataset of that name could be fetched from the "
            f"hub either ({reason})."
        ) from error
    record: dict[str, Any] = {"name": name, "kind": "dataset", "sha256": None}
    if is_local:
        record["name"] = os.path.basename(os.path.abspath(path))
        record["sha256"] = listing_digest(*_data_files(path))
    if config:
        record["config"] = config
    return from_dataset(dataset, split=split, column=column, record=record)


def from_dataset(
    dataset: Any, *, split: str | None, column: str | None, record: Mapping[str, Any] | None = None
) -> HfDatasetSource:
    """Return the images of a `Dataset`, or of a split of a `DatasetDict`.

    Args:
        dataset: the dataset.
        split: name of a split, or several joined by `+`.
        column: column of images; None to find it.
        record: name of the dataset and so on, for a record.

    Raises:
        InputError: no such split; several, and none chosen; a dataset that is read as a stream.
    """
    import datasets

    record = dict(record or {"name": type(dataset).__name__, "kind": "dataset", "sha256": None})
    if isinstance(dataset, Mapping):
        splits = list(dataset)
        if split is None and len(splits) > 1:
            raise InputError(
                f"{record['name']} has the splits {', '.join(splits)}. Choose one: --split "
                f"{splits[0]}, or --split {'+'.join(splits)}."
            )
        chosen = split.split("+") if split else splits
        for name in chosen:
            if name not in splits:
                raise InputError(
                    f"{record['name']} has no split '{name}'.{did_you_mean(name, splits)} "
                    f"Splits: {', '.join(splits)}."
                )
        record["split"] = "+".join(chosen)
        parts = [dataset[name] for name in chosen]
        dataset = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    elif split is not None and str(getattr(dataset, "split", None)) != split:
        raise InputError(f"{record['name']} has no splits; '{split}' was asked for.")
    if not isinstance(dataset, datasets.Dataset):
        raise InputError(
            f"A {type(dataset).__name__} was given; expected a datasets.Dataset, whose items can "
            "be read by index."
        )
    return HfDatasetSource(dataset, column, record)


def _image_column(features: Mapping[str, Any], column: str | None) -> str:
    """Return the name of the column of images.

    Raises:
        InputError: `column` holds no images; no column holds any; several do, and none is chosen
            or has a usual name.
    """
    import datasets

    candidates = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Image)
        # images that were written as plain structs, e.g. with pandas
        or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
    ]
    if column is not None:
        if column in candidates:
            return column
        raise InputError(
            f"Column '{column}' holds no images (columns that do: "
            f"{', '.join(candidates) or 'none'})."
        )
    usual = [name for name in candidates if len(candidates) == 1 or name in IMAGE_KEYS]
    if usual:
        return min(usual, key=lambda name: IMAGE_KEYS.index(name) if name in IMAGE_KEYS else 0)
    if candidates:
        raise InputError(
            f"Several columns hold images: {', '.join(candidates)}. Choose one: --column "
            f"{candidates[0]}."
        )
    columns = [f"{name} ({type(feature).__name__})" for name, feature in features.items()]
    raise InputError(
        f"No column of the dataset holds images: {some(columns, 8)}. Expected a column of the "
        "feature Image, with an image in each row."
    )


def _is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _data_files(path: Path) -> tuple[Path, list[str]]:
    """Return a folder and the data files in it; for a file, its folder and name."""
    if path.is_file():
        return path.parent, [path.name]
    files = [
        os.path.relpath(os.path.join(parent, file), path)
        for parent, _, names in os.walk(path, followlinks=True)
        for file in names
        if file.endswith(SUFFIXES)
    ]
    return path, files
