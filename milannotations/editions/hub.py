"""Upload of editions to the Hugging Face hub, as the folder that `load_dataset` opens.

Not everyone may redistribute images of ImageNet and Places, so images stay out of the upload
unless the user states the right to include them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from milannotations import schema
from milannotations.editions.card import DIGEST, MARK, EditionCard, write_card
from milannotations.editions.configs import edition_name, locate
from milannotations.editions.contents import CHECKSUMS
from milannotations.errors import InputError
from milannotations.utils.files import read_json, sha256

WITHOUT_IMAGES = """> **Without images.** This copy leaves them out: the column `images` is null.
> Masks, ids of the source images, activations and text are unchanged."""

RIGHTS_PREFIX = "> **With images.**"
RIGHTS = RIGHTS_PREFIX + " Rights in the images: {}"


def verify(edition: str | os.PathLike[str]) -> list[Path]:
    """Check that the data files of an edition are complete and as its card says; return them.

    Raises:
        InputError: no edition; a file is missing, damaged, of another schema, or differs from
            the digest in the card.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder = locate(edition)
    card = EditionCard.read(folder)
    expected = schema.features().arrow_schema
    files = _data_files(card)
    for path in files:
        try:
            columns = parquet.read_schema(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
        if not columns.equals(expected):
            raise InputError(f"{path} does not have the columns of an edition. Make it again.")
    for checksums in _checksum_files(files):
        digests = read_json(checksums)
        for path in (path for path in files if path.parent == checksums.parent):
            if sha256(path) != digests.get(path.name):
                raise InputError(f"{path} does not match its sha256 in {checksums}. Make it again.")
    for name, digest in _config_digests(card).items():
        config = next(c for c in card.front_matter["configs"] if c["config_name"] == name)
        if config["description"] != digest:
            raise InputError(
                f"{folder}: the files of {name} have the digest {digest}, but the card says "
                f"{config['description']}. Make the edition again."
            )
    return files


def stage(
    edition: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    include_pictures: bool = False,
    rights: str | None = None,
) -> Path:
    """Make a folder with what `push` uploads: the card, the data files and their JSON files.

    Without images the shards are rewritten, one row group at a time, with `images` null;
    shards that do not change become links.

    Args:
        edition: folder or name of an edition; it is verified first.
        folder: a new folder.
        include_pictures: see `push`.
        rights: see `push`.

    Returns:
        `folder`, an edition.

    Raises:
        InputError: see `verify`; images without a statement of rights; no images to include.
    """
    statement = " ".join((rights or "").split())
    if include_pictures and not statement:
        raise InputError(
            "Images are uploaded only with a statement of rights: who holds them, and by what "
            "right they are redistributed. Give it with --rights, or leave out --include-pictures."
        )
    files = verify(edition)
    card = EditionCard.read(locate(edition))
    with_images = [path for path in files if _has_images(path)]
    if include_pictures and not with_images:
        raise InputError(f"{edition} holds no images. Leave out --include-pictures.")
    source, target = card.path.parent, Path(folder)
    target.mkdir(parents=True)
    folders = {source, *(path.parent for path in files)}
    others = [path for at in folders for path in at.glob("*.json") if not path.name.startswith(".")]
    changed = set() if include_pictures else set(with_images)
    for path in [*files, *others]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path in changed:
            _copy_without_images(path, copy)
        elif path.name == CHECKSUMS and any(shard.parent == path.parent for shard in changed):
            digests = {name: sha256(copy.with_name(name)) for name in read_json(path)}
            copy.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
        else:
            copy.symlink_to(path.resolve())
    staged = replace(card, path=target / card.path.name)
    descriptions = _config_digests(staged)
    if changed and MARK in card.body:
        # also the digests of unions and of configs with checksums, which only write_card knows
        write_card(target)
        descriptions.update(
            {
                config["config_name"]: config["description"]
                for config in EditionCard.read(target).front_matter["configs"]
            }
        )
    note = None
    if include_pictures:
        note = RIGHTS.format(statement)
    elif with_images:
        note = WITHOUT_IMAGES
    _with_note(staged, descriptions, note).write()
    verify(target)
    return target


def push(
    edition: str | os.PathLike[str],
    repo_id: str,
    *,
    include_pictures: bool = False,
    rights: str | None = None,
    private: bool = True,
    api: Any = None,
    tell: Callable[[str], None] | None = None,
) -> str:
    """Upload an edition to the hub and return its address there.

    Everything is verified and prepared before the first request. Parquet files of an earlier
    upload that are not part of this one are deleted from the head of the repository and stay
    in its history. Call again to resume an interrupted upload.

    Args:
        edition: folder or name of an edition.
        repo_id: `ORG/NAME` of a dataset; created if it does not exist.
        include_pictures: upload the images too.
        rights: statement for the card: who holds the rights in the images, and why they may be
            redistributed; required if images are included.
        private: visibility of a repository that is created; an existing one keeps its own.
        api: a `huggingface_hub.HfApi`; None makes one with the user's login.
        tell: called with a line for the user before the upload.

    Raises:
        InputError: see `stage`; a bad `repo_id`; offline mode; the hub refuses.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is no valid dataset name on the hub: {error}") from None
    if repo_id.count("/") != 1:
        raise InputError(f"{repo_id!r} has no owner. Expected ORG/NAME.")
    if api is None:
        if constants.HF_HUB_OFFLINE:
            raise InputError(
                "HF_HUB_OFFLINE is set, so nothing can be uploaded. Unset it and run this again."
            )
        api = HfApi()
    with tempfile.TemporaryDirectory(prefix="milannotations-push-") as scratch:
        folder = stage(
            edition,
            Path(scratch) / edition_name(edition),
            include_pictures=include_pictures,
            rights=rights,
        )
        n_files = sum(path.is_file() for path in folder.rglob("*"))
        if tell is not None:
            images = "with images" if include_pictures else "without images"
            tell(f"Uploading {n_files:,} files to {repo_id}, {images}.")
        try:
            address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                repo_type="dataset",
                commit_message=f"Edition {edition_name(edition)}",
                delete_patterns=["*.parquet"],
            )
        # its base classes belong to the http library that the hub's client is built on
        except (*HfHubHTTPError.__bases__, OSError) as error:
            raise InputError(
                f"The upload to {repo_id} failed: {str(error).strip()} Log in with an account "
                "that may write there (hf auth login), and run this again to resume."
            ) from None
    return str(address)


# ---- files and digests that a card names


def _config_files(card: EditionCard, config: dict[str, Any]) -> list[Path]:
    """Return the data files of a config, in order.

    Raises:
        InputError: a pattern matches nothing, or leaves the folder.
    """
    folder, files = card.path.parent, []
    for patterns in card.patterns()[str(config["config_name"])].values():
        for pattern in patterns:
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise InputError(f"{folder}: the card names a file outside the folder: {pattern}")
            paths = sorted(folder.glob(pattern))
            if not paths:
                raise InputError(
                    f"{folder} is incomplete: the card's config {config['config_name']} names "
                    f"{pattern}, and no such file exists."
                )
            files += paths
    return files


def _data_files(card: EditionCard) -> list[Path]:
    """Return the data files of all configs, each once."""
    configs = card.front_matter["configs"]
    return list(dict.fromkeys(path for config in configs for path in _config_files(card, config)))


def _checksum_files(files: list[Path]) -> list[Path]:
    """Return the checksum files of the folders that data files lie in."""
    folders = dict.fromkeys(path.parent for path in files)
    return [folder / CHECKSUMS for folder in folders if (folder / CHECKSUMS).is_file()]


def _config_digests(card: EditionCard) -> dict[str, str]:
    """Return descriptions with digests, of configs whose digest is over files, not checksums."""
    digests = {}
    for config in card.front_matter["configs"]:
        files = _config_files(card, config)
        folders = {path.parent for path in files}
        is_direct = len(folders) == 1 and not (folders.pop() / CHECKSUMS).exists()
        if is_direct and str(config.get("description", "")).startswith(DIGEST):
            digests[config["config_name"]] = DIGEST + sha256(*files)
    return digests


def _with_note(card: EditionCard, descriptions: dict[str, str], note: str | None) -> EditionCard:
    """Return a card with other descriptions of configs, and a note under its title."""
    configs = [
        {**config, "description": descriptions[config["config_name"]]}
        if config["config_name"] in descriptions
        else config
        for config in card.front_matter["configs"]
    ]
    lines = [line for line in card.body.splitlines() if not line.startswith(RIGHTS_PREFIX)]
    title = next((i for i, line in enumerate(lines) if line.startswith("# ")), -1)
    if note is not None:
        lines[title + 1 : title + 1] = ["", note]
    return replace(
        card,
        front_matter={**card.front_matter, "configs": configs},
        body="\n".join(lines) + "\n",
    )


# ---- shards


def _has_images(path: Path) -> bool:
    """Return whether any row of a shard has images, from its statistics if there are any."""
    import pyarrow.parquet as parquet

    metadata = parquet.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if not chunk.path_in_schema.startswith("images."):
                continue
            counts = chunk.statistics
            if counts is None or not counts.has_null_count:
                return True
            if counts.null_count < chunk.num_values:
                return True
    return False


def _copy_without_images(source: Path, target: Path) -> None:
    """Copy a shard with `images` null, one row group at a time; images are never read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(source) as shard:
        columns = shard.schema_arrow
        kept = [name for name in columns.names if name != "images"]
        index, field = columns.get_field_index("images"), columns.field("images")
        with parquet.ParquetWriter(
            target, columns, compression="zstd", compression_level=9
        ) as writer:
            for group in range(shard.num_row_groups):
                table = shard.read_row_group(group, columns=kept)
                table = table.add_column(index, field, pa.nulls(len(table), field.type))
                writer.write_table(table.cast(columns), row_group_size=max(1, len(table)))
