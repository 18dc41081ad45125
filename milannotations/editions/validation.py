"""Look at every file, row and picture of an edition and say what is wrong."""

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
BATCH = 16

Wrong = tuple[str, str]
"""Where, and what."""


def validate(edition: str | os.PathLike[str], *, progress: bool = False) -> list[str]:
    """Return what is wrong with an edition, a sentence each; nothing where all is well.

    Looked at are the files that the card names and their checksums, the columns, the
    numbers of units (against the catalog, and against what was converted), keys that stand
    twice, the split of published networks, lists of unequal length, and every picture and
    mask: that it decodes, is RGB or 1-bit, and that both have one size. A union's files are
    those of its members. What `milan data check` does.

    Args:
        edition: folder, or the name of an embedded one.
        progress: show a bar.

    Raises:
        InputError: no edition.
    """
    from tqdm import tqdm

    root = locate(edition)
    findings: list[str] = []
    files: dict[str, dict[str, list[Path]]] = {}
    for config in list_configs(edition):
        try:
            files[config] = list_files(edition, config)
        except InputError as error:
            findings.append(str(error))
    singles = [config for config in files if config not in catalog.GROUPS]
    total = sum(_n_rows(path) for config in singles for p in files[config].values() for path in p)
    with (
        tqdm(total=total, unit="unit", desc="check", disable=not progress) as bar,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        for config in singles:
            findings += _check_config(root, config, files[config], pool, bar)
    return findings


def _n_rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0


def _check_config(
    root: Path, config: str, files: dict[str, list[Path]], pool: ThreadPoolExecutor, bar: Any
) -> Iterator[str]:
    folder = root / config
    try:
        sums, prepared = (read_json(folder / n) for n in (CHECKSUMS, PREPARED))
    except InputError as error:
        yield str(error)
        sums, prepared = {}, {}
    named = {path.name for paths in files.values() for path in paths}
    for name, digest in sums.items():
        if not (folder / name).is_file():
            yield f"{config}/{name} is missing; {CHECKSUMS} names it."
        elif sha256(folder / name) != digest:
            yield f"{config}/{name} is not as it was written: its sha256 differs."
    if sums and named - set(sums):
        yield f"{config}: {some(sorted(named - set(sums)))} are not in {CHECKSUMS}."
    units: dict[str, list[schema.Unit]] = {}
    for split, paths in files.items():
        units[split] = []
        for path in paths:
            wrong: dict[str, list[schema.Unit]] = {}
            try:
                for row in _rows(path):
                    unit = schema.Unit(row["network"], row["layer"], row["unit"])
                    units[split].append(unit)
                    for what in _check_row(row, pool):
                        wrong.setdefault(what, []).append(unit)
                    bar.update()
            except InputError as error:
                yield str(error)
            for what, where in wrong.items():
                yield f"{path.relative_to(root)}: {what} ({some(where)})."
    yield from _check_units(config, units, prepared)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    expected = schema.features().arrow_schema
    try:
        with parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(expected):
                said = [
                    f"{name} is {file.schema_arrow.field(name).type}"
                    if name in file.schema_arrow.names
                    else f"{name} is absent"
                    for name in expected.names
                    if name not in file.schema_arrow.names
                    or file.schema_arrow.field(name).type != expected.field(name).type
                ] or [f"the columns are {', '.join(file.schema_arrow.names)}"]
                raise InputError(f"{path}: not the columns of an edition: {some(said)}.")
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _check_row(row: Mapping[str, Any], pool: ThreadPoolExecutor) -> list[str]:
    """Return what is wrong with one unit."""
    lengths = {name: len(row[name]) for name in LISTS if row[name] is not None}
    wrong = []
    if len(set(lengths.values())) > 1:
        wrong.append(f"lists of unequal length: {sorted(set(lengths.values()))}")
    if 0 in lengths.values():
        wrong.append("an absent list is empty where null was expected")
    wrong += [f"{name} is null" for name in ("descriptions", "annotator_ids") if row[name] is None]
    images = list(pool.map(lambda part: _look(part, "RGB"), row["images"] or ()))
    masks = list(pool.map(lambda part: _look(part, "1"), row["masks"] or ()))
    for name, seen in (("a picture", images), ("a mask", masks)):
        wrong += [f"{name} {found}" for found in sorted({s for s in seen if isinstance(s, str)})]
    sizes = [found for found in (*images, *masks) if not isinstance(found, str)]
    if len(set(sizes)) > 1:
        wrong.append("pictures and masks differ in size")
    return wrong


def _look(part: Mapping[str, Any], mode: str) -> tuple[int, int] | str:
    """Return the size of a picture, or what is wrong with it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(part["bytes"])) as picture:
            picture.load()
            size: tuple[int, int] = picture.size
            return size if picture.mode == mode else f"is {picture.mode}, not {mode}"
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, Image.DecompressionBombError):
        return "does not decode"


def _check_units(
    config: str, units: dict[str, list[schema.Unit]], prepared: Mapping[str, Any]
) -> Iterator[str]:
    every = [unit for members in units.values() for unit in members]
    twice = [unit for unit, count in Counter(every).items() if count > 1]
    if twice:
        yield f"{config}: units that stand twice: {some(twice)}."
    layers = Counter(unit.layer for unit in every)
    cut = prepared.get("settings", {}).get("unlisted", True)
    expected = {name: layer["units"] for name, layer in prepared.get("layers", {}).items()}
    if config in catalog.NETWORKS:
        if not cut:
            expected = catalog.NETWORKS[config].layers
        try:
            catalog.check_units(config, every, unlisted=bool(prepared) and cut)
        except InputError as error:
            yield f"{config}: {error}"
        if set(units) <= set(splits.Split._fields) and prepared.get("annotations_sha256", True):
            test = set(splits.within(config).test)
            strays = [
                u for split, part in units.items() for u in part if (u in test) != (split == "test")
            ]
            if strays:
                yield f"{config}: units on the wrong side of the split: {some(strays)}."
    for layer, count in expected.items():
        if layers[layer] != count:
            yield f"{config}: layer {layer} has {layers[layer]:,} units; expected {count:,}."
    others = [unit for unit in every if unit.network != config]
    if config in catalog.NETWORKS and others:
        yield f"{config}: units of another network: {some(others)}."
