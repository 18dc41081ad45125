"""The official splits: what they hold, that they never change, and opening an edition by one."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import warnings

import pytest

import milannotations
from milannotations import InputError, Unit, catalog, schema, splits
from milannotations.editions.configs import EMBEDDED
from milannotations.editions.writing import write_config
from milannotations.splits import generation, official

SHIPPED = json.loads((official.HOME / "v1.json").read_text())
BASE = list(catalog.NETWORKS)[:6]


def group(what):
    """Return networks by words in their names, with none of the catalog's groups."""
    return [name for name in BASE if any(word in name for word in what.split())]


EXPECTED = {
    "across-network/alexnet-to-resnet152": (group("alexnet"), group("resnet")),
    "across-network/resnet152-to-alexnet": (group("resnet"), group("alexnet")),
    "across-dataset/imagenet-to-places365": (group("imagenet"), group("places")),
    "across-dataset/places365-to-imagenet": (group("places"), group("imagenet")),
    "across-task/cls-to-gen": (group("alexnet resnet"), group("biggan")),
    "across-task/gen-to-cls": (group("biggan"), group("alexnet resnet")),
    "across-arch/base-to-dino_vits8-imagenet": (BASE, ["dino_vits8-imagenet"]),
    **{f"leave-one-out/{name}": ([n for n in BASE if n != name], [name]) for name in BASE},
}
WITHIN = {
    f"within-network/{name}" + (f"@{seed}" if seed else ""): (name, seed)
    for name in BASE
    for seed in range(5)
}


def ids(networks):
    """Write out every unit of these networks."""
    return [
        f"{name}/{layer}/{unit}"
        for name in networks
        for layer, count in catalog.NETWORKS[name].layers.items()
        for unit in range(count)
    ]


def by_hand(name):
    """Return the train and test ids of an official split from its JSON, as its text says."""
    made = SHIPPED["conditions"][name]
    sides = {}
    for side in ("test", "train"):
        sides[side] = []
        for network, held in made[side].items():
            if held == "all":
                sides[side] += ids([network])
            elif held == "rest":
                sides[side] += [one for one in ids([network]) if one not in sides["test"]]
            else:
                sides[side] += [f"{network}/{at}/{unit}" for at in held for unit in held[at]]
    return sides["train"], sides["test"]


# ---- what they hold


def test_names_are_the_conditions_of_the_paper():
    assert list(splits.names()) == [*WITHIN, *EXPECTED]
    assert len(splits.names()) == 43


@pytest.mark.parametrize(("name", "where"), WITHIN.items())
def test_within_a_network_is_the_hash_split(name, where):
    assert milannotations.split(name) == splits.within(*where)


@pytest.mark.parametrize(("name", "networks"), EXPECTED.items())
def test_elsewhere_all_units_train_or_test(name, networks):
    split = milannotations.split(name)
    assert [list(map(str, side)) for side in split] == [ids(side) for side in networks]


@pytest.mark.parametrize("name", [*WITHIN, *EXPECTED])
def test_ids_and_digest_follow_from_the_file_and_the_catalog(name):
    train, test = by_hand(name)
    split = milannotations.split(name)
    assert (list(map(str, split.train)), list(map(str, split.test))) == (train, test)
    lines = "".join(f"{line}\n" for line in ["train", *train, "test", *test])
    made = SHIPPED["conditions"][name]
    assert hashlib.sha256(lines.encode()).hexdigest() == made["sha256"] == splits.digest(split)
    assert (made["n_train"], made["n_test"]) == (len(train), len(test))
    assert not set(train) & set(test)


def test_the_file_of_version_1_never_changes():
    # A new value here would make published scores incomparable: never renew it. New
    # content is a new version, in a file beside this one.
    digests = "".join(f"{c.name} {c.digest}\n" for c in splits.conditions(version=1))
    assert hashlib.sha256(digests.encode()).hexdigest() == (
        "c9afe7af473522528337662f681e2afede09cd1e5bd91c60bd344d8b0f085d05"
    )


def test_it_is_small():
    assert (official.HOME / "v1.json").stat().st_size < 100_000


# ---- making them


def test_the_command_makes_what_ships(tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "milannotations.splits", "--out", str(tmp_path / "new")],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "latin-1", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == str(tmp_path / "new" / "v1.json")
    assert (tmp_path / "new" / "v1.json").read_bytes() == (official.HOME / "v1.json").read_bytes()


def test_a_version_is_never_written_over(tmp_path):
    generation.write(tmp_path)
    generation.write(tmp_path)  # the same bytes may be
    (tmp_path / "v1.json").write_text("{}")
    with pytest.raises(InputError, match="A version never changes"):
        generation.write(tmp_path)
    assert (tmp_path / "v1.json").read_text() == "{}"


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        "within-network/alexnet/imagenet",
        "within-network/alexnet-imagenet@0",
        " within-network/alexnet-imagenet\n",
    ],
)
def test_names_have_other_forms(name):
    assert milannotations.split(name) == milannotations.split("within-network/alexnet-imagenet")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("across-network/alexnet-to-resnet", "'across-network/alexnet-to-resnet152'"),
        ("within-network/alexnet-imgnet", "'within-network/alexnet-imagenet'"),
        ("across-arch/cnn-to-vit", "across-arch/base-to-dino_vits8-imagenet"),
        ("within-network/dino", "within-network/biggan-places365."),
        ("alexnet-imagenet", "or 'leave-one-out/alexnet-imagenet'"),
        ("zebra", "'zebra'"),
        ("", "milan list splits"),
    ],
)
def test_a_name_that_is_none_gets_a_hint(name, said):
    with pytest.raises(InputError, match="See: milan list splits") as error:
        milannotations.split(name)
    assert said in str(error.value)


def test_versions_are_known():
    assert milannotations.split("across-task/cls-to-gen", version=1) == milannotations.split(
        "across-task/cls-to-gen"
    )
    with pytest.raises(InputError, match=r"No version 2 .*versions: 1"):
        milannotations.split("across-task/cls-to-gen", version=2)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    made = json.loads(json.dumps(SHIPPED))
    held = made["conditions"]["within-network/alexnet-imagenet"]["test"]["alexnet-imagenet"]
    held["conv1"][0] += 1
    (tmp_path / "v9.json").write_text(json.dumps(made))
    monkeypatch.setattr(official, "HOME", tmp_path)
    splits.split("across-task/cls-to-gen", version=9)
    with pytest.raises(InputError, match=r"v9\.json was changed"):
        splits.split("within-network/alexnet-imagenet", version=9)


def test_the_module_is_there_after_a_plain_import():
    code = "import milannotations as m; print(len(m.splits.names()), m.split.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["43", "split"]


def test_milan_list_splits(capsys):
    from leaderboard.cli import main

    for words in (("list", "splits"), ("list", "splits", "--json")):
        with contextlib.suppress(SystemExit):
            main.main(words)
    table, _, rows = capsys.readouterr().out.partition("\n[")
    assert "across-network/alexnet-to-resnet152      2,528   7,808" in table
    assert {"name", "version", "train", "test", "digest"} == set(json.loads(f"[{rows}")[0])
    assert [row["name"] for row in json.loads(f"[{rows}")] == list(splits.names())


# ---- opening an edition


def rows_of(units):
    return [
        schema.row(unit, descriptions=[f"{unit} once", f"{unit} twice"], unit_kind="channel")
        for unit in units
    ]


def write(folder, network, units, shuffle=False):
    """Write a config with the official train and test; maybe in another order of rows."""
    from milannotations.published.annotations import split_units

    parts = split_units(network, units)
    write_config(folder, network, {s: rows_of(u[::-1] if shuffle else u) for s, u in parts.items()})


def first(network, count):
    """Return the first units of every layer."""
    return [unit for unit in catalog.NETWORKS[network].units() if unit.unit < count]


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """An edition of four published networks, the first 20 units of every layer."""
    folder = tmp_path_factory.mktemp("cut") / "release"
    for name in BASE[:4]:
        write(folder, name, first(name, 20), shuffle=True)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An edition with every unit of two published networks."""
    folder = tmp_path_factory.mktemp("whole") / "release"
    for name in BASE[:2]:
        write(folder, name, list(catalog.NETWORKS[name].units()), shuffle=True)
    return folder


def units_in(rows):
    return [Unit(row["network"], row["layer"], row["unit"]) for row in rows]


def test_an_edition_opens_by_condition_in_its_order(whole):
    name = "within-network/alexnet-places365@3"
    expected = milannotations.split(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        both = milannotations.load(whole, condition=name)
        test = milannotations.load(whole, condition=name, split="test")
    assert list(both) == ["train", "test"]
    assert units_in(both["train"]) == list(expected.train)
    assert units_in(both["test"]) == units_in(test) == list(expected.test)
    assert test.features == schema.features()


def test_rows_are_mapped_from_disk_and_not_copied(whole):
    opened = milannotations.load(whole, "alexnet-imagenet")
    test = milannotations.load(whole, condition="within-network/alexnet-imagenet@1", split="test")
    known = {file["filename"] for part in opened.values() for file in part.cache_files}
    assert {file["filename"] for file in test.cache_files} == known
    assert len(test.data) == sum(map(len, opened.values()))
    assert len(test) < len(test.data)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["across-network/alexnet-to-resnet152", "across-task/cls-to-gen"])
@pytest.mark.filterwarnings("ignore:.*holds:UserWarning")
def test_what_is_there_of_several_networks(cut, name, streaming):
    expected = milannotations.split(name).train
    made = milannotations.load(cut, condition=name, split="train", streaming=streaming)
    present = [unit for unit in expected if unit.unit < 20]
    assert sorted(units_in(made)) == sorted(present)
    if not streaming:
        assert units_in(made) == present


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.filterwarnings("ignore:.*holds:UserWarning")
def test_columns_are_those_asked_for(cut, streaming):
    made = milannotations.load(
        cut,
        condition="within-network/resnet152-places365",
        split="test",
        columns=["descriptions", "layer"],
        streaming=streaming,
    )
    expected = [u for u in splits.within("resnet152-places365").test if u.unit < 20]
    rows = list(made)
    assert set(rows[0]) == {"descriptions", "layer"}
    assert sorted(row["descriptions"][0] for row in rows) == sorted(f"{u} once" for u in expected)


@pytest.mark.parametrize("name", list(WITHIN)[4:7])
def test_both_sides_of_a_stream(whole, name):
    both = milannotations.load(whole, condition=name, streaming=True, columns=["layer", "unit"])
    assert list(both) == ["train", "test"]
    for side, expected in milannotations.split(name)._asdict().items():
        found = {(row["layer"], row["unit"]) for row in both[side]}
        assert found == {unit[1:] for unit in expected}


def test_pictures_of_several_row_groups(tmp_path):
    import pyarrow.parquet as parquet

    home = EMBEDDED["mini"] / "data" / "mini"
    table = parquet.read_table(home / "test.parquet").slice(0, 12)
    network = table["network"][0].as_py()
    path = write_config(tmp_path / "pixels", network, {"test": table.to_pylist()})
    parquet.write_table(table, path / "test.parquet", row_group_size=5)
    keys = zip(*(table[name].to_pylist() for name in ("network", "layer", "unit")), strict=True)
    units = [Unit(*key) for key in keys]
    mine = splits.Split((units[0],), (units[11], units[1], units[4]))
    mapped = milannotations.load(tmp_path / "pixels", condition=mine, split="test")
    streamed = milannotations.load(
        tmp_path / "pixels", condition=mine, split="test", streaming=True
    )
    assert units_in(mapped) == list(mine.test)
    assert units_in(streamed) == sorted(mine.test, key=units.index)
    for rows in (mapped, streamed):
        assert all(row["images"][0].size == row["masks"][0].size == (64, 64) for row in rows)


def test_missing_units_are_counted(cut):
    with pytest.warns(UserWarning, match=r"holds \d+ of the 390 test units .* missing: ") as said:
        milannotations.load(cut, condition="within-network/resnet152-imagenet", split="test")
    assert said[0].filename == __file__


def test_missing_networks_are_named(cut):
    with pytest.raises(InputError) as error:
        milannotations.load(cut, condition="across-task/cls-to-gen")
    for part in [
        "across-task/cls-to-gen needs biggan-imagenet, biggan-places365",
        "milan data prepare biggan-imagenet biggan-places365",
    ]:
        assert part in str(error.value)
    with pytest.raises(InputError, match="and mini has mini"):
        milannotations.load("mini", condition="across-task/cls-to-gen")


def test_a_split_of_ones_own(cut):
    mine = splits.Split(
        (Unit("alexnet-imagenet", "conv2", 3),),
        (Unit("resnet152-places365", "0", 1), Unit("alexnet-imagenet", "conv1", 2)),
    )
    both = milannotations.load(cut, condition=mine)
    assert {side: units_in(rows) for side, rows in both.items()} == {
        "train": list(mine.train),
        "test": list(mine.test),
    }
    planted = splits.Split((Unit("mini", "conv1", 0),), ())
    with pytest.raises(InputError, match="the given split has no units in test"):
        milannotations.load("mini", condition=planted)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"config": "alexnet-imagenet"}, "Leave out 'alexnet-imagenet'"),
        ({"split": "tests"}, "Did you mean 'test'"),
        ({"split": "train+test"}, "leave it out for both"),
        ({"columns": ["pictures"]}, "No column 'pictures'"),
    ],
)
def test_what_a_condition_does_not_take(cut, asked, said):
    with pytest.raises(InputError, match=said.replace("+", r"\+")):
        milannotations.load(cut, condition="within-network/alexnet-imagenet", **asked)


def test_an_edition_with_none_of_the_units(tmp_path):
    write(tmp_path / "small", "alexnet-imagenet", [Unit("alexnet-imagenet", "conv1", 0)])
    name = "within-network/alexnet-imagenet"
    with pytest.warns(UserWarning, match="holds 1 of the 1,037 train units"):
        assert len(milannotations.load(tmp_path / "small", condition=name, split="train")) == 1
    with pytest.raises(InputError, match="none of the 115 test units"):
        milannotations.load(tmp_path / "small", condition=name, split="test")
