"""Validation of an edition: every file, row, image and mask."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from milannotations import catalog, schema, splits
from milannotations.editions.configs import list_configs, list_files, locate
from milannotations.editions.contents import CHECKSUMS, PREPARED
from milannotations.errors import InputError, some
from milannotations.utils.files import read_json, sha256

LISTS = ("images", "masks", "source_ids", "activations")
"""Columns that have one entry per exemplar."""

BATCH = 16
"""Rows that are read at once."""


def validate(edition: str | os.PathLike[str], *, progress: bool = False) -> list[str]:
    """Return the errors of an edition, a sentence each; an empty list if there are none.

    Checks the files that the card names and their checksums, the columns, the numbers of units
    (against the catalog, and against what was converted), repeated keys, the split of published
    networks, the lengths of lists, and every image and mask: it decodes, is RGB or 1-bit, and
    both have one size. Unions are skipped, because their files are those of their members.
    `milan data check` calls this.

    Args:
        edition: folder, or the name of an embedded edition.
        progress: show a progress bar.

    Raises:
        InputError: no edition.
    """
    from tqdm import tqdm

    root = locate(edition)
    errors: list[str] = []
    files: dict[str, dict[str, list[Path]]] = {}
    for config in list_configs(edition):
        try:
            files[config] = list_files(edition, config)
        except InputError as error:
            errors.append(str(error))
    singles = [config for config in files if config not in catalog.GROUPS]
    total = sum(_n_rows(path) for config in singles for p in files[config].values() for path in p)
    with (
        tqdm(total=total, unit="unit", desc="check", disable=not progress) as bar,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        for config in singles:
            errors += _config_errors(root, config, files[config], pool, bar)
    return errors


def _n_rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0


def _config_errors(
    root: Path, config: str, files: dict[str, list[Path]], pool: ThreadPoolExecutor, bar: Any
) -> Iterator[str]:
    folder = root / config
    try:
        checksums, prepared = (read_json(folder / name) for name in (CHECKSUMS, PREPARED))
    except InputError as error:
        yield str(error)
        checksums, prepared = {}, {}
    named = {path.name for paths in files.values() for path in paths}
    for name, digest in checksums.items():
        if not (folder / name).is_file():
            yield f"{config}/{name} is missing; {CHECKSUMS} lists it."
        elif sha256(folder / name) != digest:
            yield f"{config}/{name} has changed: its sha256 differs from {CHECKSUMS}."
    if checksums and named - set(checksums):
        yield f"{config}: {some(sorted(named - set(checksums)))} are not in {CHECKSUMS}."
    units: dict[str, list[schema.Unit]] = {}
    for split, paths in files.items():
        units[split] = []
        for path in paths:
            # one sentence per kind of error and file, with the units that have it
            units_of: dict[str, list[schema.Unit]] = {}
            try:
                for row in _rows(path):
                    unit = schema.Unit(row["network"], row["layer"], row["unit"])
                    units[split].append(unit)
                    for message in _row_errors(row, pool):
                        units_of.setdefault(message, []).append(unit)
                    bar.update()
            except InputError as error:
                yield str(error)
            for message, members in units_of.items():
                yield f"{path.relative_to(root)}: {message} ({some(members)})."
    yield from _unit_errors(config, units, prepared)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    expected = schema.features().arrow_schema
    try:
        with parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(expected):
                differences = [
                    f"{name} is {file.schema_arrow.field(name).type}"
                    if name in file.schema_arrow.names
                    else f"{name} is missing"
                    for name in expected.names
                    if name not in file.schema_arrow.names
                    or file.schema_arrow.field(name).type != expected.field(name).type
                ] or [f"the columns are {', '.join(file.schema_arrow.names)}"]
                raise InputError(f"{path}: not the columns of an edition: {some(differences)}.")
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _row_errors(row: Mapping[str, Any], pool: ThreadPoolExecutor) -> list[str]:
    lengths = {name: len(row[name]) for name in LISTS if row[name] is not None}
    errors = []
    if len(set(lengths.values())) > 1:
        errors.append(f"lists of unequal length: {sorted(set(lengths.values()))}")
    if 0 in lengths.values():
        errors.append("an absent list is empty where null was expected")
    errors += [f"{name} is null" for name in ("descriptions", "annotator_ids") if row[name] is None]
    images = list(pool.map(lambda cell: _image_size(cell, "RGB"), row["images"] or ()))
    masks = list(pool.map(lambda cell: _image_size(cell, "1"), row["masks"] or ()))
    for name, results in (("an image", images), ("a mask", masks)):
        errors += [
            f"{name} {error}" for error in sorted({r for r in results if isinstance(r, str)})
        ]
    sizes = [result for result in (*images, *masks) if not isinstance(result, str)]
    if len(set(sizes)) > 1:
        errors.append("images and masks differ in size")
    return errors


def _image_size(cell: Mapping[str, Any], mode: str) -> tuple[int, int] | str:
    """Return the size of an image, or its error."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            image.load()
            size: tuple[int, int] = image.size
            return size if image.mode == mode else f"is {image.mode}, not {mode}"
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, Image.DecompressionBombError):
        return "does not decode"


def _unit_errors(
    config: str, units: dict[str, list[schema.Unit]], prepared: Mapping[str, Any]
) -> Iterator[str]:
    all_units = [unit for members in units.values() for unit in members]
    repeated = [unit for unit, count in Counter(all_units).items() if count > 1]
    if repeated:
        yield f"{config}: repeated units: {some(repeated)}."
    counts = Counter(unit.layer for unit in all_units)
    # `unlisted` conversions may hold part of a network; their own record says how much
    may_be_partial = prepared.get("settings", {}).get("unlisted", True)
    expected = {name: layer["units"] for name, layer in prepared.get("layers", {}).items()}
    if config in catalog.NETWORKS:
        if not may_be_partial:
            expected = catalog.NETWORKS[config].layers
        try:
            catalog.check_units(config, all_units, unlisted=bool(prepared) and may_be_partial)
        except InputError as error:
            yield f"{config}: {error}"
        if set(units) <= set(splits.Split._fields) and prepared.get("annotations_sha256", True):
            test = set(splits.within(config).test)
            misplaced = [
                unit
                for split, members in units.items()
                for unit in members
                if (unit in test) != (split == "test")
            ]
            if misplaced:
                yield f"{config}: units in the wrong split: {some(misplaced)}."
    for layer, count in expected.items():
        if counts[layer] != count:
            yield f"{config}: layer {layer} has {counts[layer]:,} units; expected {count:,}."
    others = [unit for unit in all_units if unit.network != config]
    if config in catalog.NETWORKS and others:
        yield f"{config}: units of another network: {some(others)}."
