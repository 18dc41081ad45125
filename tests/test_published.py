"""The published annotations.csv, and the editions made of it."""

import csv
import hashlib
import io
import json
import zipfile

import datasets
import pyarrow.parquet
import pytest

import milannotations
from milannotations import InputError, Unit, catalog, schema, splits
from milannotations.editions import card, loading
from milannotations.editions.configs import list_configs, pick_config
from milannotations.editions.writing import write_config
from milannotations.published import annotations

PLACES, DINO = "resnet152-places365", "dino_vits8-imagenet"
EXEMPLARS = ("images", "masks", "source_ids", "activations", "threshold")


def annotations_of(network, layers):
    """Return made-up rows, two for every unit of some layers, far from grouped by unit."""
    units = [unit for unit in catalog.NETWORKS[network].units() if unit.layer in layers]
    rows = [(unit.layer, unit.unit, f"{word} {unit.unit}") for word in "ab" for unit in units]
    return rows[::-1]


def names(folder):
    """Return everything in a folder, at any depth, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def fail(*_, **__):
    raise OSError("no space left")


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path_factory, monkeypatch):
    """Give every test a cache of its own: what another test opened must not be found in it."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


@pytest.fixture
def mine(tiny_annotations):
    """Twenty units of somebody's own network."""
    return tiny_annotations([("conv1", i, f"red {i}") for i in range(20)], name="mine.csv")


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    """An edition of two networks; the first is whole, of the second there are two layers."""
    folder = tmp_path_factory.mktemp("edition")
    for network, layers in ((DINO, catalog.NETWORKS[DINO].layers), (PLACES, ("0", "4"))):
        path = folder / "annotations.csv"
        with open(path, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(
                [("layer", "unit", "summary"), *annotations_of(network, layers)]
            )
        annotations.build_edition(path, network.replace("-", "/", 1), folder / "both")
    return folder / "both"


# ---- reading


@pytest.mark.parametrize("ends", ["\r\n", "\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_may_come_in_any_order(tiny_annotations, ends, encoding):
    rows = [("conv2", 1, "dogs"), ("conv1", 0, "red"), ("conv2", 1, "cats"), ("conv1", 0, "café")]
    read = annotations.read(
        tiny_annotations(rows, ends=ends, encoding=encoding), "alexnet/imagenet"
    )
    assert list(read.descriptions.items()) == [
        (Unit("alexnet-imagenet", "conv2", 1), ["dogs", "cats"]),
        (Unit("alexnet-imagenet", "conv1", 0), ["red", "café"]),
    ]
    assert (read.network, read.n_descriptions, read.n_empty) == ("alexnet-imagenet", 4, 0)


@pytest.mark.parametrize("text", ["wool, stairs", 'so-called "dogs"', " Kept As It Is. ", "a\nb"])
def test_a_summary_is_kept_as_it_stands(tiny_annotations, text):
    read = annotations.read(tiny_annotations([("conv1", 0, text)]), "mine")
    assert read.descriptions == {Unit("mine", "conv1", 0): [text]}


def test_layers_of_digits_stay_text(tiny_annotations):
    read = annotations.read(tiny_annotations([("0", 3, "sand"), ("4", 3, "sky")]), PLACES)
    assert list(read.descriptions) == [Unit(PLACES, "0", 3), Unit(PLACES, "4", 3)]


@pytest.mark.parametrize("empty", ["", "  ", "...", "-"])
def test_a_summary_without_a_word_is_counted_and_its_unit_kept(tiny_annotations, empty):
    rows = [("conv1", 0, empty), ("conv1", 1, "red"), ("conv1", 1, empty)]
    read = annotations.read(tiny_annotations(rows), "mine")
    assert list(read.descriptions.values()) == [[], ["red"]]
    assert (read.n_descriptions, read.n_empty) == (1, 2)


def test_the_digest_is_that_of_the_file(mine):
    assert annotations.read(mine, "mine").digest == hashlib.sha256(mine.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("network", "content", "said"),
    [
        ("mine", b"", ["is empty", "header"]),
        ("mine", b"layer,unit,summary\n", ["has a header and no rows"]),
        (
            "mine",
            b"layer,unit,description\nconv1,0,red\n",
            ["layer, unit, description", "expected layer, unit, summary"],
        ),
        ("mine", b"unit,layer,summary\n0,conv1,red\n", ["expected layer, unit, summary"]),
        ("mine", b"layer,unit,summary\nconv1,0,caf\xe9\n", ["not UTF-8", "Save it as UTF-8"]),
        ("mine", b"layer,unit,summary\nconv1,x,red\n", ["line 2", "unit 'x'", "whole number"]),
        ("mine", b"layer,unit,summary\nconv1,-1,red\n", ["unit '-1'", "whole number from 0"]),
        ("mine", b"layer,unit,summary\nconv1,1.5,red\n", ["unit '1.5'"]),
        ("mine", b"layer,unit,summary\nconv1,,red\n", ["unit ''"]),
        ("mine", b"layer,unit,summary\n ,0,red\n", ["line 2", "the layer is empty"]),
        ("mine", b"layer,unit,summary\nconv1,0,red, blue\n", ["line 2", "needs quotes"]),
        ("mine", b'layer,unit,summary\nconv1,0,"red\n', ["is a quote left open?"]),
        ("alexnet-imagenet", b"layer,unit,summary\nconv1,64,red\n", ["0 to 63", "conv1/64"]),
        (
            "alexnet-imagenet",
            b"layer,unit,summary\nconv9,0,red\n",
            ["'conv9'", "layers: conv1, conv2, conv3, conv4, conv5"],
        ),
        (
            "alexnet/imgnet",
            b"layer,unit,summary\nconv1,0,red\n",
            ["'alexnet-imgnet'", "Did you mean 'alexnet-imagenet'?", "--unlisted"],
        ),
    ],
)
def test_a_broken_file_is_refused_with_a_hint(write_file, network, content, said):
    with pytest.raises(InputError) as error:
        annotations.read(write_file("annotations.csv", content), network)
    for part in said:
        assert part in str(error.value)


def test_a_folder_or_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        annotations.read(tmp_path, "mine")
    with pytest.raises(InputError, match="No such file"):
        annotations.read(tmp_path / "absent.csv", "mine")


@pytest.mark.parametrize("network", ["", " ", "."])
def test_a_network_needs_a_name(mine, network):
    with pytest.raises(InputError, match="network"):
        annotations.read(mine, network)


@pytest.mark.parametrize(
    ("network", "layer", "unit"),
    [("alexnet-imgnet", "conv1", 0), ("alexnet-imagenet", "fc6", 0), (PLACES, "0", 64)],
)
def test_unlisted_takes_what_the_catalog_does_not_know(tiny_annotations, network, layer, unit):
    path = tiny_annotations([(layer, unit, "red")])
    with pytest.raises(InputError):
        annotations.read(path, network)
    read = annotations.read(path, network, unlisted=True)
    assert list(read.descriptions) == [Unit(network, layer, unit)]


# ---- what an edition holds


@pytest.mark.parametrize("network", [DINO, PLACES])
def test_datasets_opens_it_whole(edition, network):
    opened = datasets.load_dataset(str(edition), network)
    assert set(opened) == {"train", "test"}
    for split in opened.values():
        assert split.features == schema.features()


def test_datasets_streams_it(edition):
    whole = datasets.load_dataset(str(edition), PLACES)
    streamed = datasets.load_dataset(str(edition), PLACES, streaming=True)
    assert set(streamed) == set(whole)
    for split, rows in streamed.items():
        assert rows.features == schema.features()
        assert list(rows) == list(whole[split])


@pytest.mark.parametrize("streaming", [False, True])
def test_only_the_columns_asked_for_are_read(edition, streaming):
    opened = datasets.load_dataset(
        str(edition), PLACES, split="test", columns=["unit", "descriptions"], streaming=streaming
    )
    expected = splits.within(PLACES).test[0].unit
    assert next(iter(opened)) == {
        "unit": expected,
        "descriptions": [f"b {expected}", f"a {expected}"],
    }


@pytest.mark.parametrize("network", [DINO, PLACES])
def test_the_splits_are_those_of_the_network_in_the_order_of_the_catalog(edition, network):
    opened = loading.load(edition, network, columns=["network", "layer", "unit"])
    found = {name: [Unit(**row) for row in split] for name, split in opened.items()}
    layers = {unit.layer for units in found.values() for unit in units}
    expected = splits.within(network)._asdict()
    for name, units in found.items():
        assert units == [unit for unit in expected[name] if unit.layer in layers]


def test_exemplars_are_null_and_descriptions_are_lists(edition):
    for row in loading.load(edition, PLACES, "train+test"):
        assert [row[name] for name in EXEMPLARS] == [None] * len(EXEMPLARS)
        assert len(row["descriptions"]) == 2
        assert row["annotator_ids"] == []


@pytest.mark.parametrize(("network", "kind"), [(DINO, "token"), (PLACES, "channel")])
def test_the_kind_of_unit_is_that_of_the_catalog(edition, network, kind):
    rows = loading.load(edition, network, "test", columns=["unit_kind", "polarity"])
    assert {(row["unit_kind"], row["polarity"]) for row in rows} == {(kind, "+")}


def test_a_unit_without_a_word_has_an_empty_list(tiny_annotations, tmp_path):
    path = tiny_annotations([("conv1", 0, ""), ("conv1", 1, "red")])
    annotations.build_edition(path, "mine", tmp_path / "out")
    assert loading.load(tmp_path / "out", split="train")["descriptions"] == [[], ["red"]]


def test_too_few_units_for_a_test_split_still_open(tiny_annotations, tmp_path):
    annotations.build_edition(tiny_annotations([("conv1", 0, "red")]), "mine", tmp_path / "out")
    assert list_configs(tmp_path / "out") == {"mine": ["train"]}
    assert set(loading.load(tmp_path / "out")) == {"train"}


# ---- opening


def test_configs_are_those_on_the_card(edition):
    assert list_configs(edition) == {name: ["train", "test"] for name in (DINO, PLACES)}


@pytest.mark.parametrize("name", [PLACES, "resnet152/places365"])
def test_a_config_may_have_a_slash(edition, name):
    assert pick_config(edition, name) == PLACES
    assert milannotations.load(edition, name, split="test").num_rows == 6 + 26


def test_the_only_config_need_not_be_named(mine, tmp_path):
    annotations.build_edition(mine, "mine", tmp_path / "out")
    assert pick_config(tmp_path / "out", None) == "mine"


@pytest.mark.parametrize(
    ("config", "split", "said"),
    [
        (None, None, [DINO, PLACES, "--config"]),
        ("resnet152-places", None, ["'resnet152-places'", f"Did you mean '{PLACES}'?"]),
        (PLACES, "validation", ["'validation'", "splits: train, test"]),
        (PLACES, "train+tset", ["'tset'", "splits: train, test"]),
    ],
)
def test_a_wrong_config_or_split_is_refused_with_a_hint(edition, config, split, said):
    with pytest.raises(InputError) as error:
        loading.load(edition, config, split)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "card",
    [
        None,
        b"# no front matter\n",
        b"---\nlicense: mit\n---\n",
        b"---\nconfigs: [\n---\n",
        b"---\nconfigs: 3\n---\n",
        b"---\nconfigs:\n- config_name: default\n  data_files: data.csv\n---\n",
        b"---\nconfigs:\n- data_files: []\n---\n",
        b"---\nconfigs: caf\xe9\n---\n",
    ],
    ids=[
        "no card",
        "no front matter",
        "no configs",
        "not YAML",
        "a number",
        "one pattern of files",
        "no name",
        "not UTF-8",
    ],
)
def test_a_folder_of_something_else_is_no_edition(write_file, tmp_path, mine, card):
    if card is not None:
        write_file("README.md", card)
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"README\.md"):
        loading.load(tmp_path)
    with pytest.raises(InputError):
        annotations.build_edition(mine, "mine", tmp_path, overwrite=True)
    assert names(tmp_path) == before


def test_no_folder_is_no_edition(tmp_path):
    with pytest.raises(InputError, match=r"No edition '.*absent'"):
        loading.load(tmp_path / "absent")


# ---- writing


def test_a_second_network_leaves_the_first_as_it_was(mine, tmp_path):
    out = tmp_path / "out"
    annotations.build_edition(mine, "mine", out)
    before = (out / "mine" / "train.parquet").read_bytes()
    annotations.build_edition(mine, "yours", out)
    assert list(list_configs(out)) == ["mine", "yours"]
    assert (out / "mine" / "train.parquet").read_bytes() == before


def test_a_network_that_is_there_is_replaced_only_when_asked(mine, tiny_annotations, tmp_path):
    out = tmp_path / "out"
    annotations.build_edition(mine, "mine", out)
    other = tiny_annotations([("conv1", 0, "blue")])
    with pytest.raises(InputError, match=r"has mine already.*--overwrite"):
        annotations.build_edition(other, "mine", out)
    assert list_configs(out) == {"mine": ["train", "test"]}
    annotations.build_edition(other, "mine", out, overwrite=True)
    assert loading.load(out)["train"]["descriptions"] == [["blue"]]
    assert names(out) == {"README.md", "mine", "mine/train.parquet"}


@pytest.mark.parametrize("second", ["here/out", "there/out"])
def test_an_edition_of_the_same_name_opened_before_is_not_opened_again(
    mine, tiny_annotations, tmp_path, second
):
    # `datasets` keeps what it opened under the folder's last name and the config's
    other = tiny_annotations([("conv1", i, f"blue {i}") for i in range(20)])
    for path, out in ((mine, "here/out"), (other, second)):
        annotations.build_edition(path, "mine", tmp_path / out, overwrite=True)
        opened = datasets.load_dataset(str(tmp_path / out), "mine")
    assert opened["test"]["descriptions"][0][0].startswith("blue")


def test_a_file_is_no_place_for_an_edition(mine):
    with pytest.raises(InputError, match="is a file; an edition is a folder"):
        annotations.build_edition(mine, "mine", mine)


def test_the_card_counts_units_and_descriptions(edition):
    card = (edition / "README.md").read_text(encoding="utf-8")
    assert f"| {DINO} | train | 1,080 | 2,160 |" in card
    assert f"| {PLACES} | test | 32 | 64 |" in card


def test_a_nameless_network_cannot_wipe_an_edition(mine, tmp_path):
    # "$NETWORK" with nothing in it, in somebody's script
    annotations.build_edition(mine, "mine", tmp_path / "out")
    before = names(tmp_path / "out")
    with pytest.raises(InputError):
        annotations.build_edition(mine, "", tmp_path / "out")
    assert names(tmp_path / "out") == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_write_leaves_nothing_behind(mine, tmp_path, monkeypatch, overwrite):
    out = tmp_path / "out"
    annotations.build_edition(mine, "mine", out)
    before = {name: (out / name).read_bytes() for name in names(out) if (out / name).is_file()}
    write, written = pyarrow.parquet.write_table, []

    def fail_at_the_second(*args, **kwargs):
        if written:
            fail()
        written.append(write(*args, **kwargs))

    monkeypatch.setattr(pyarrow.parquet, "write_table", fail_at_the_second)
    with pytest.raises(OSError, match="no space left"):
        annotations.build_edition(mine, "mine" if overwrite else "yours", out, overwrite=overwrite)
    assert names(out) == {"README.md", "mine", "mine/train.parquet", "mine/test.parquet"}
    assert {name: (out / name).read_bytes() for name in before} == before


def test_a_failed_first_write_can_be_tried_again(mine, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(pyarrow.parquet, "write_table", fail)
        with pytest.raises(OSError, match="no space left"):
            annotations.build_edition(mine, "mine", tmp_path / "out")
    assert names(tmp_path / "out") == set()
    annotations.build_edition(mine, "mine", tmp_path / "out")
    assert list_configs(tmp_path / "out") == {"mine": ["train", "test"]}


def test_a_first_write_stopped_before_its_card_can_be_tried_again(mine, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(card.yaml, "safe_dump", fail)
        with pytest.raises(OSError, match="no space left"):
            annotations.build_edition(mine, "mine", tmp_path / "out")
    annotations.build_edition(mine, "mine", tmp_path / "out", overwrite=True)
    assert list_configs(tmp_path / "out") == {"mine": ["train", "test"]}


def test_write_config_keeps_what_rows_say(tmp_path):
    unit = Unit("made", "conv1", 0)
    row = schema.row(unit, descriptions=["red"], truth="red", seen=False, threshold=0.5)
    folder = write_config(tmp_path / "out", "made", {"validation": [row], "test": []})
    assert folder == tmp_path / "out" / "made"
    assert list(loading.load(tmp_path / "out", split="validation")) == [row]
    assert list_configs(tmp_path / "out") == {"made": ["validation"]}


# ---- files that others made


def test_what_the_original_code_wrote_and_read(parity, write_file):
    with zipfile.ZipFile(parity / "a4_alexnet-places365.zip") as archive:
        path = write_file("annotations.csv", archive.read("annotations.csv"))
    # three layers of a toy network under a published name: not in the catalog
    read = annotations.read(path, "alexnet/places365", unlisted=True)
    by_unit = {}
    for row in csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")):
        by_unit.setdefault((row["layer"], int(row["unit"])), []).append(row["summary"])
    assert {unit[1:]: texts for unit, texts in read.descriptions.items()} == by_unit
    golden = json.loads((parity / "a4_golden.json").read_text())["alexnet-places365"]
    assert (
        {unit.layer for unit in read.descriptions} == set(golden["layers"]) == {"conv1", "0", "4"}
    )
    for sample in golden["samples"]:
        # the original loader, asked for three, cut off a fourth
        assert by_unit[sample["layer"], sample["unit"]][:3] == sample["annotations"]


def test_the_annotations_of_a_whole_real_network(real):
    path = real / "annotations" / "milannotations_resnet152_imagenet.csv"
    read = annotations.read(path, "resnet152/imagenet")
    assert set(read.descriptions) == set(catalog.NETWORKS["resnet152-imagenet"].units())
    assert {len(texts) for texts in read.descriptions.values()} == {3}
    assert read.n_empty == 0
