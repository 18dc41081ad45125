"""Uploads, up to the request: an api that keeps what it is given."""

import io
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as parquet
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from milannotations import InputError, Unit, schema
from milannotations.editions import hub
from milannotations.editions.card import write_card
from milannotations.editions.contents import CHECKSUMS, shard_name
from milannotations.editions.writing import write_config
from milannotations.utils.files import sha256


class Api:
    """Stands for HfApi: keeps what was asked, and a copy of the folder."""

    def __init__(self, keep, fails=None):
        self.keep, self.fails, self.asked = Path(keep), fails, []

    def create_repo(self, repo_id, **options):
        self.asked.append(("create_repo", repo_id, options))
        return f"https://hub.example/datasets/{repo_id}"

    def upload_folder(self, **options):
        if self.fails is not None:
            raise self.fails
        shutil.copytree(options["folder_path"], self.keep)  # follows links, as uploading does
        self.asked.append(("upload_folder", options))


def encoded(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


@pytest.fixture
def edition(tmp_path):
    """An edition of two networks with pictures; a shard of one has several row groups."""
    rng = np.random.default_rng(0)

    def rows(network, count):
        return [
            schema.row(
                Unit(network, "conv1", index),
                images=[encoded(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in "abc"],
                masks=[encoded(rng.integers(0, 2, (64, 64)).astype(bool)) for _ in "abc"],
                source_ids=["1", "2", "3"],
                descriptions=["red things", "things"],
                unit_kind="channel",
            )
            for index in range(count)
        ]

    root = tmp_path / "release"
    write_config(root, "own-net", {"train": rows("own-net", 9), "test": rows("own-net", 2)})
    path = root / "own-net" / "train.parquet"
    parquet.write_table(parquet.read_table(path), path, row_group_size=4)
    write_config(root, "other-net", {"test": rows("other-net", 3)})
    (root / "statistics.json").write_text("{}")
    (root / ".state").write_text("x")
    return root


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_without_pictures(edition, tmp_path):
    api, said = Api(tmp_path / "sent"), []
    address = hub.push(edition, "org/name", api=api, tell=said.append)
    assert address == "https://hub.example/datasets/org/name"
    assert api.asked[0] == (
        "create_repo", "org/name", {"repo_type": "dataset", "private": True, "exist_ok": True},
    )  # fmt: skip
    options = api.asked[1][1]
    assert options["repo_id"] == "org/name"
    assert options["repo_type"] == "dataset"
    assert not Path(options["folder_path"]).exists()  # nothing is left behind
    assert tree(api.keep) == [
        "README.md", "other-net/test.parquet", "own-net/test.parquet", "own-net/train.parquet",
        "statistics.json",
    ]  # fmt: skip
    for config in ("own-net", "other-net"):
        before = datasets.load_dataset(str(edition), config)
        after = datasets.load_dataset(str(api.keep), config)
        assert list(after) == list(before)
        for split, rows in after.items():
            assert rows.features == schema.features()
            assert set(rows["images"]) == {None} if len(rows) else True
            others = [name for name in schema.COLUMNS if name not in ("images", "masks")]
            assert (
                rows.select_columns(others).to_list()
                == before[split].select_columns(others).to_list()
            )
            for new, old in zip(rows["masks"], before[split]["masks"], strict=True):
                assert [np.array_equal(a, b) for a, b in zip(new, old, strict=True)] == [True] * 3
    sent = sum(path.stat().st_size for path in api.keep.rglob("*.parquet"))
    assert sent < 0.2 * sum(path.stat().st_size for path in edition.rglob("*.parquet"))
    card = (api.keep / "README.md").read_text()
    assert "Without images" in card
    assert "without images" in said[0]
    assert "Without images" not in (edition / "README.md").read_text()


def test_no_byte_of_a_picture_goes_out(edition, tmp_path):
    api = Api(tmp_path / "sent")
    hub.push(edition, "org/name", api=api)
    for path in api.keep.rglob("*.parquet"):
        file = parquet.ParquetFile(path)
        assert (
            file.num_row_groups
            == parquet.ParquetFile(edition / path.relative_to(api.keep)).num_row_groups
        )
        assert set(file.read(columns=["images"])["images"].to_pylist()) == {None}


def test_the_card_has_the_digests_of_what_is_sent(edition, tmp_path):
    api = Api(tmp_path / "sent")
    hub.push(edition, "org/name", api=api)
    hub.verify(api.keep)
    fronts = [
        yaml.safe_load((root / "README.md").read_text().split("---\n")[1])["configs"]
        for root in (edition, api.keep)
    ]
    assert [c["data_files"] for c in fronts[0]] == [c["data_files"] for c in fronts[1]]
    assert all(a["description"] != b["description"] for a, b in zip(*fronts, strict=True))


def test_with_pictures_and_a_line_on_rights(edition, tmp_path):
    api = Api(tmp_path / "sent")
    hub.push(
        edition, "org/name", include_pictures=True, rights=" ours,\n CC0 ", private=False, api=api
    )
    assert api.asked[0][2]["private"] is False
    for path in edition.rglob("*.parquet"):
        assert (api.keep / path.relative_to(edition)).read_bytes() == path.read_bytes()
    assert "Rights in the images: ours, CC0" in (api.keep / "README.md").read_text()
    assert len(datasets.load_dataset(str(api.keep), "own-net", split="train")[0]["images"]) == 3


def test_a_line_on_rights_goes_when_the_pictures_go(edition, tmp_path):
    first, second = Api(tmp_path / "first"), Api(tmp_path / "second")
    hub.push(edition, "org/name", include_pictures=True, rights="ours", api=first)
    hub.push(first.keep, "org/name", api=second)
    card = (second.keep / "README.md").read_text()
    assert "Without images" in card
    assert "With images" not in card


def test_what_was_sent_without_pictures_is_sent_again_as_it_is(edition, tmp_path):
    first, second = Api(tmp_path / "first"), Api(tmp_path / "second")
    hub.push(edition, "org/name", api=first)
    hub.push(first.keep, "org/name", api=second)
    for path in first.keep.rglob("*.parquet"):
        assert (second.keep / path.relative_to(first.keep)).read_bytes() == path.read_bytes()
    assert (second.keep / "README.md").read_text().count("Without images") == 1
    with pytest.raises(InputError, match="holds no images"):
        hub.push(first.keep, "org/name", include_pictures=True, rights="x", api=second)


def test_the_embedded_edition_goes_without_its_code(tmp_path):
    api = Api(tmp_path / "sent")
    hub.push("mini", "org/mini", api=api)
    assert tree(api.keep) == [
        "README.md", "data/mini/statistics.json", "data/mini/test.parquet",
        "data/mini/train.parquet", "data/mini/validation.parquet",
    ]  # fmt: skip
    assert datasets.load_dataset(str(api.keep), "mini", split="test")[0]["images"] is None
    assert json.loads((api.keep / "data" / "mini" / "statistics.json").read_text())


def test_patterns_and_unions_in_the_card(edition, tmp_path):
    card = edition / "README.md"
    _, front, body = card.read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    front["configs"].append(
        {"config_name": "all", "data_files": [{"split": "test", "path": ["*-net/test.parquet"]}]}
    )
    card.write_text(f"---\n{yaml.safe_dump(front)}---\n{body}")
    api = Api(tmp_path / "sent")
    hub.push(edition, "org/name", api=api)
    assert len(datasets.load_dataset(str(api.keep), "all", split="test")) == 5
    front["configs"][-1]["data_files"][0]["path"] = "nothing/*.parquet"
    card.write_text(f"---\n{yaml.safe_dump(front)}---\n{body}")
    with pytest.raises(InputError, match=r"config all names nothing/\*\.parquet"):
        hub.push(edition, "org/name", api=api)
    front["configs"][-1]["data_files"][0]["path"] = "../*.parquet"
    card.write_text(f"---\n{yaml.safe_dump(front)}---\n{body}")
    with pytest.raises(InputError, match="outside"):
        hub.push(edition, "org/name", api=api)


def test_shards_with_checksums(edition, tmp_path):
    """A converted config: shards of a layer, their checksums beside them, and the card of both."""
    folder = edition / "own-net"
    for split in ("train", "test"):
        (folder / f"{split}.parquet").rename(folder / shard_name(split, "conv1", 0))
    shards = ("train-conv1-00000.parquet", "test-conv1-00000.parquet")
    sums = {name: sha256(folder / name) for name in shards}
    (folder / CHECKSUMS).write_text(json.dumps(sums))
    write_card(edition)
    api = Api(tmp_path / "sent")
    hub.push(edition, "org/name", api=api)
    sent = json.loads((api.keep / "own-net" / CHECKSUMS).read_text())
    assert list(sent) == list(sums)
    for name, digest in sent.items():
        assert digest == sha256(api.keep / "own-net" / name) != sums[name]
    assert len(datasets.load_dataset(str(api.keep), "own-net", split="train+test")) == 11
    before = (api.keep / "README.md").read_text()
    assert "Without images" in before
    write_card(api.keep)
    front = [text.split("---\n")[1] for text in (before, (api.keep / "README.md").read_text())]
    assert front[0] == front[1]
    (folder / CHECKSUMS).write_text(json.dumps(dict.fromkeys(sums, "0" * 64)))
    with pytest.raises(InputError, match=r"conv1-00000\.parquet does not match its sha256"):
        hub.push(edition, "org/name", api=api)


# --- nothing is asked of the hub when something is wrong


def refused(edition, api, match, repo_id="org/name", **options):
    with pytest.raises(InputError, match=match):
        hub.push(edition, repo_id, api=api, **options)
    assert api.asked == []


def test_pictures_need_a_line_on_rights(edition, tmp_path):
    api = Api(tmp_path / "sent")
    refused(edition, api, "statement of rights", include_pictures=True)
    refused(edition, api, "statement of rights", include_pictures=True, rights=" \n")


@pytest.mark.parametrize("name", ["name", "a/b/c", "org/na me", "/x", "org/--"])
def test_bad_names(edition, tmp_path, name):
    refused(edition, Api(tmp_path / "sent"), "is no valid dataset name|has no owner", repo_id=name)


def test_damage_is_found_first(edition, tmp_path):
    api = Api(tmp_path / "sent")
    path = edition / "own-net" / "test.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    refused(edition, api, r"test\.parquet is damaged")
    other = edition / "other-net" / "test.parquet"
    path.write_bytes(other.read_bytes())
    refused(edition, api, "but the card says")
    parquet.write_table(
        parquet.read_table(edition / "other-net" / "test.parquet", columns=["layer"]), path
    )
    refused(edition, api, "does not have the columns")
    path.unlink()
    refused(edition, api, "is incomplete")
    refused(tmp_path / "nowhere", api, "No edition")


def test_offline(edition):
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        hub.push(edition, "org/name")


@pytest.mark.parametrize("error", [OSError, HfHubHTTPError.__bases__[0]])
def test_the_hub_refuses(edition, tmp_path, error):
    api = Api(tmp_path / "sent", fails=error("401: who are you?"))
    with pytest.raises(InputError, match=r"401: who are you\? Log in"):
        hub.push(edition, "org/name", api=api)


def test_the_real_api_takes_these_words():
    import inspect

    from huggingface_hub import HfApi

    made = inspect.signature(HfApi.create_repo).parameters
    sent = inspect.signature(HfApi.upload_folder).parameters
    assert {"repo_type", "private", "exist_ok"} <= set(made)
    assert {"repo_id", "folder_path", "repo_type", "commit_message", "delete_patterns"} <= set(sent)
