"""Editions on the Hugging Face hub: exactly the folder that `load_dataset` opened.

Pictures of ImageNet and Places may not be given on by everyone, so they stay at home unless
somebody says by what right they go.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from milannotations import schema
from milannotations.editions import card as cards
from milannotations.editions import loading
from milannotations.errors import InputError
from milannotations.utils.files import replacing, sha256

DIGEST = "sha256:"
"""How the description of a config begins that names the digest of its files."""

LEFT_OUT = """> **Without pictures.** They are left out of this copy: the column `images` is null.
> Masks, ids of the source pictures, activations and text are as they were."""

RIGHTS = "> **With pictures.** Rights in the pictures: {}"


@dataclass(frozen=True)
class _Card:
    """A card in its parts: the front matter, the text, and the data files it names."""

    root: Path
    front: dict[str, Any]
    body: str

    @classmethod
    def read(cls, edition: str | os.PathLike[str]) -> _Card:
        root = loading.locate(edition)
        loading.configs(edition)  # says what is wrong with a card
        _, front, body = (root / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        return cls(root, yaml.safe_load(front), body)

    def files(self, config: dict[str, Any]) -> list[Path]:
        """Return the data files of a config, in order.

        Raises:
            InputError: a pattern matches nothing, or leaves the folder.
        """
        found = []
        for entry in config["data_files"]:
            patterns = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            for pattern in patterns:
                if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                    raise InputError(f"{self.root}: the card names a file outside: {pattern}")
                matched = sorted(self.root.glob(pattern))
                if not matched:
                    raise InputError(
                        f"{self.root} is not whole: the card's config {config['config_name']} "
                        f"names {pattern}, and there is no such file."
                    )
                found += matched
        return found

    def all_files(self) -> list[Path]:
        """Return every data file once."""
        return list(
            dict.fromkeys(path for config in self.front["configs"] for path in self.files(config))
        )

    def checksums(self) -> list[Path]:
        """Return the files that hold the checksums of a folder's data files."""
        folders = dict.fromkeys(path.parent for path in self.all_files())
        return [at / cards.CHECKSUMS for at in folders if (at / cards.CHECKSUMS).is_file()]

    def digests(self) -> dict[str, str]:
        """Return the digest of every config that names that of its files, not of checksums."""
        found = {}
        for config in self.front["configs"]:
            files = self.files(config)
            folders = {path.parent for path in files}
            direct = len(folders) == 1 and not (folders.pop() / cards.CHECKSUMS).exists()
            if direct and str(config.get("description", "")).startswith(DIGEST):
                found[config["config_name"]] = DIGEST + sha256(*files)
        return found

    def write(self, digests: dict[str, str], note: str | None) -> None:
        """Write the card, with other digests and a note under its title."""
        configs = [
            {**config, "description": digests[config["config_name"]]}
            if config["config_name"] in digests
            else config
            for config in self.front["configs"]
        ]
        front = yaml.safe_dump({**self.front, "configs": configs}, sort_keys=False)
        lines = [line for line in self.body.splitlines() if not line.startswith(RIGHTS[:20])]
        title = next((i for i, line in enumerate(lines) if line.startswith("# ")), -1)
        if note is not None:
            lines[title + 1 : title + 1] = ["", note]
        with replacing(self.root / "README.md") as temporary:
            temporary.write_text(f"---\n{front}---\n" + "\n".join(lines) + "\n", encoding="utf-8")


def verify(edition: str | os.PathLike[str]) -> list[Path]:
    """Return the data files of an edition, all of them there and as its card says.

    Raises:
        InputError: no edition; a file is missing, damaged, of another schema, or other than
            the digest in the card.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    card = _Card.read(edition)
    wanted = schema.features().arrow_schema
    files = card.all_files()
    for path in files:
        try:
            found = parquet.read_schema(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
        if not found.equals(wanted):
            raise InputError(f"{path} has other columns than every edition; make it anew.")
    for sums in card.checksums():
        said = cards.read_json(sums)
        for path in (path for path in files if path.parent == sums.parent):
            if sha256(path) != said.get(path.name):
                raise InputError(f"{path} is not the file that {sums} names; make it anew.")
    for name, digest in card.digests().items():
        config = next(c for c in card.front["configs"] if c["config_name"] == name)
        if config["description"] != digest:
            raise InputError(
                f"{card.root}: the files of {name} are not those that the card was written for "
                f"({digest}; the card says {config['description']}). Make the edition anew."
            )
    return files


def stage(
    edition: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    include_pictures: bool = False,
    rights: str | None = None,
) -> Path:
    """Make a folder that holds what `push` uploads: card, data files and the JSON beside them.

    Without pictures the shards are written anew, a row group at a time, with `images` null;
    shards that stay as they are become links.

    Args:
        edition: folder or name of an edition; it is verified first.
        folder: a new folder.
        include_pictures: see `push`.
        rights: see `push`.

    Returns:
        `folder`, an edition.

    Raises:
        InputError: see `verify`; pictures without a line on rights, or none to include.
    """
    line = " ".join((rights or "").split())
    if include_pictures and not line:
        raise InputError(
            "Pictures go out with a line on rights: who holds them, and by what right they are "
            "given on. Say it with --rights, or leave out --include-pictures."
        )
    files = verify(edition)
    card = _Card.read(edition)
    pictured = [path for path in files if _has_pictures(path)]
    if include_pictures and not pictured:
        raise InputError(f"{edition} holds no pictures; leave out --include-pictures.")
    target = Path(folder)
    target.mkdir(parents=True)
    beside = {card.root, *(path.parent for path in files)}
    others = [path for at in beside for path in at.glob("*.json") if not path.name.startswith(".")]
    changed = set() if include_pictures else set(pictured)
    for path in [*files, *others]:
        copy = target / path.relative_to(card.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path in changed:
            _without_pictures(path, copy)
        elif path.name == cards.CHECKSUMS and any(at.parent == path.parent for at in changed):
            sums = {name: sha256(copy.with_name(name)) for name in cards.read_json(path)}
            copy.write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
        else:
            copy.symlink_to(path.resolve())
    staged = _Card(target, card.front, card.body)
    digests = staged.digests()
    if changed and loading.MARK in card.body:
        cards.write(target)  # knows the digests of unions and of configs with checksums
        anew = _Card.read(target).front["configs"]
        digests.update({config["config_name"]: config["description"] for config in anew})
    note = RIGHTS.format(line) if include_pictures else LEFT_OUT if pictured else None
    staged.write(digests, note)
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

    Everything is verified and made ready before the first request. Parquet files of an earlier
    upload that are not part of this one are removed from the head of the repository, and stay
    in its history. An upload that was cut off goes on when this is called again.

    Args:
        edition: folder or name of an edition.
        repo_id: `ORG/NAME` of a dataset, made if there is none.
        include_pictures: upload the pictures too.
        rights: a line that goes into the card: who holds the rights in the pictures, and why
            they may be given on. Needed with `include_pictures`.
        private: of a repository that is made; one that exists keeps what it has.
        api: a `huggingface_hub.HfApi`; None takes one with the user's own login.
        tell: is called with a line for the user when there is something to know.

    Raises:
        InputError: see `stage`; a bad `repo_id`; offline mode; the hub refuses.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} cannot be a dataset's name on the hub: {error}") from None
    if repo_id.count("/") != 1:
        raise InputError(f"{repo_id!r} has no owner; ORG/NAME was expected.")
    if api is None:
        if constants.HF_HUB_OFFLINE:
            raise InputError(
                "HF_HUB_OFFLINE is set, so nothing can be uploaded. Unset it and run this again."
            )
        api = HfApi()
    with tempfile.TemporaryDirectory(prefix="milannotations-push-") as scratch:
        folder = stage(
            edition,
            Path(scratch) / loading.name_of(edition),
            include_pictures=include_pictures,
            rights=rights,
        )
        n_files = sum(path.is_file() for path in folder.rglob("*"))
        if tell is not None:
            pictures = "with" if include_pictures else "without"
            tell(f"Uploading {n_files:,} files to {repo_id}, {pictures} pictures.")
        try:
            address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                repo_type="dataset",
                commit_message=f"Edition {loading.name_of(edition)}",
                delete_patterns=["*.parquet"],
            )
        # its base is the error of whichever http library the hub's client is built on
        except (*HfHubHTTPError.__bases__, OSError) as error:
            raise InputError(
                f"{repo_id} could not be uploaded: {str(error).strip()} Is there a login that may "
                "write there (hf auth login)? Run this again to go on."
            ) from None
    return str(address)


def _has_pictures(path: Path) -> bool:
    """Say whether any row of a shard has pictures, from its statistics where it has them."""
    import pyarrow.parquet as parquet

    metadata = parquet.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if not chunk.path_in_schema.startswith("images."):
                continue
            counted = chunk.statistics
            if counted is None or not counted.has_null_count:
                return True
            if counted.null_count < chunk.num_values:
                return True
    return False


def _without_pictures(source: Path, target: Path) -> None:
    """Write a shard anew with `images` null, a row group at a time; pictures are never read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(source) as shard:
        whole = shard.schema_arrow
        kept = [name for name in whole.names if name != "images"]
        at, field = whole.get_field_index("images"), whole.field("images")
        with parquet.ParquetWriter(
            target, whole, compression="zstd", compression_level=9
        ) as writer:
            for group in range(shard.num_row_groups):
                table = shard.read_row_group(group, columns=kept)
                table = table.add_column(at, field, pa.nulls(len(table), field.type))
                writer.write_table(table.cast(whole), row_group_size=max(1, len(table)))
