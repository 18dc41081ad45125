"""The published networks, and which of their units are for testing."""

import hashlib
import random

import pytest

from milannotations import InputError, Unit, catalog, splits

# Hernandez et al. 2022, table 1; layers in the order of the published folders
PUBLISHED = {
    "alexnet-imagenet": {"conv1": 64, "conv2": 192, "conv3": 384, "conv4": 256, "conv5": 256},
    "alexnet-places365": {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256},
    "resnet152-imagenet": {
        "conv1": 64,
        "layer1": 256,
        "layer2": 512,
        "layer3": 1024,
        "layer4": 2048,
    },
    "resnet152-places365": {"0": 64, "4": 256, "5": 512, "6": 1024, "7": 2048},
    "biggan-imagenet": {
        "layer0": 1536,
        "layer1": 768,
        "layer2": 768,
        "layer3": 384,
        "layer4": 192,
        "layer5": 96,
    },
    "biggan-places365": {
        "layer0": 2048,
        "layer1": 1024,
        "layer2": 1024,
        "layer3": 512,
        "layer4": 256,
        "layer5": 128,
    },
    "dino_vits8-imagenet": {f"blocks.{i}.mlp.fc1": 100 for i in range(12)},
}
TOTALS = (1152, 1376, 3904, 3904, 3744, 4992, 1200)
BASE = list(PUBLISHED)[:6]


def expected_test_units(network, seed):
    """Split again, in as few words as possible and with none of the suite's code."""
    test = set()
    for layer, count in PUBLISHED[network].items():
        unit_of = {
            hashlib.sha256(f"{network}/{layer}/{unit}/{seed}".encode()).hexdigest(): unit
            for unit in range(count)
        }
        test.update((network, layer, unit_of[key]) for key in sorted(unit_of)[: round(count / 10)])
    return test


def digest(units):
    return hashlib.sha256("\n".join(map(str, units)).encode()).hexdigest()


# ---- catalog


def test_networks_and_layers_are_the_published_ones_in_order():
    found = {name: list(network.layers.items()) for name, network in catalog.NETWORKS.items()}
    assert found == {name: list(layers.items()) for name, layers in PUBLISHED.items()}
    assert list(found) == list(PUBLISHED)


def test_totals_are_those_of_the_paper():
    assert tuple(network.n_units for network in catalog.NETWORKS.values()) == TOTALS
    assert catalog.N_UNITS == sum(TOTALS) == 20_272
    assert catalog.N_DESCRIPTIONS == 3 * 20_272 == 60_816


@pytest.mark.parametrize("name", PUBLISHED)
def test_units_come_layer_by_layer_each_once(name):
    expected = [(name, layer, i) for layer, n in PUBLISHED[name].items() for i in range(n)]
    assert list(catalog.NETWORKS[name].units()) == expected


@pytest.mark.parametrize(
    ("group", "members"),
    [
        ("base", BASE),
        ("cls", BASE[:4]),
        ("gen", ["biggan-imagenet", "biggan-places365"]),
        ("imagenet", ["alexnet-imagenet", "resnet152-imagenet", "biggan-imagenet"]),
        ("places365", ["alexnet-places365", "resnet152-places365", "biggan-places365"]),
        ("alexnet", ["alexnet-imagenet", "alexnet-places365"]),
        ("resnet152", ["resnet152-imagenet", "resnet152-places365"]),
        ("biggan", ["biggan-imagenet", "biggan-places365"]),
        *[(f"not-{name}", [other for other in BASE if other != name]) for name in BASE],
    ],
)
def test_groups_have_their_members_in_the_order_of_concatenation(group, members):
    assert list(catalog.GROUPS[group]) == members


def test_there_are_fourteen_groups_and_dino_is_in_none():
    assert len(catalog.GROUPS) == 14
    assert not any("dino_vits8-imagenet" in members for members in catalog.GROUPS.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_archive_is_called_after_its_network(name):
    assert catalog.NETWORKS[name].archive == f"{name}.zip"


@pytest.mark.parametrize(
    ("network", "layer", "shown"),
    [
        ("resnet152-places365", "0", "conv1"),
        ("resnet152-places365", "7", "res4"),
        ("resnet152-imagenet", "layer4", "layer4"),
    ],
)
def test_a_layer_of_digits_has_a_name_people_know(network, layer, shown):
    assert catalog.NETWORKS[network].display_layer(layer) == shown


@pytest.mark.parametrize("name", ["alexnet/imagenet", "alexnet-imagenet", " alexnet/imagenet\n"])
def test_names_have_one_form(name):
    assert catalog.canonical(name) == "alexnet-imagenet"


def test_check_accepts_every_published_unit_and_somebody_elses_network():
    for name, network in catalog.NETWORKS.items():
        catalog.check_units(name, network.units())
    catalog.check_units("our-robot", [Unit("our-robot", "anything", 10**6)])


@pytest.mark.parametrize(
    ("network", "layer", "unit", "said"),
    [
        (
            "resnet152-imgnet",
            "conv1",
            0,
            ["'resnet152-imgnet'", "Did you mean 'resnet152-imagenet'?", "milan list networks"],
        ),
        (
            "resnet152-imagenet",
            "layer5",
            0,
            [
                "'layer5' is not in resnet152-imagenet",
                "(layers: conv1, layer1, layer2, layer3, layer4)",
            ],
        ),
        ("resnet152-places365", "conv1", 0, ["'conv1'", "(layers: 0, 4, 5, 6, 7)"]),
        ("alexnet-imagenet", "conv1", 64, ["units 0 to 63 in layer conv1", "got conv1/64"]),
    ],
)
def test_check_says_what_came_what_was_expected_and_a_hint(network, layer, unit, said):
    with pytest.raises(InputError) as error:
        catalog.check_units(network, [Unit(network, layer, unit)])
    for part in said:
        assert part in str(error.value)
    catalog.check_units(network, [Unit(network, layer, unit)], unlisted=True)


def test_check_counts_the_units_it_does_not_list():
    units = [Unit("alexnet-imagenet", "conv1", i) for i in range(60, 80)]
    with pytest.raises(InputError, match=r"conv1/64, .*conv1/68, \.\.\. \(16 in all\)"):
        catalog.check_units("alexnet-imagenet", units)


# ---- splits


@pytest.mark.parametrize("network", PUBLISHED)
@pytest.mark.parametrize("seed", [0, 1])
def test_within_is_the_hash_split(network, seed):
    assert set(splits.within(network, seed).test) == expected_test_units(network, seed)


@pytest.mark.parametrize("network", PUBLISHED)
def test_within_covers_the_network_once_and_in_order(network):
    split = splits.within(network)
    train, test = set(split.train), set(split.test)
    units = list(catalog.NETWORKS[network].units())
    assert [unit for unit in units if unit in train] == list(split.train)
    assert [unit for unit in units if unit in test] == list(split.test)
    assert train | test == set(units)
    assert not train & test


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            "resnet152-imagenet",
            "7b4575ff09b4839ffa5ee9d38d0ce9c590558a9204417ea4e794b162dcf85ca2",
        ),
        (
            "resnet152-places365",
            "866ccf93dceda7fbc734b8906efcba8a1fc571fb8f3cb76c974ebff1762f3872",
        ),
    ],
)
def test_the_official_test_units_never_change(network, expected):
    # sha256 of the test units (network/layer/unit), one a line, seed 0. A new value here
    # would make every published score incomparable: never renew it.
    assert digest(splits.within(network).test) == expected


def test_seeds_differ_and_seed_0_is_the_default():
    assert splits.within("alexnet-imagenet", 1) != splits.within("alexnet-imagenet", 0)
    assert splits.within("alexnet-imagenet") == splits.within("alexnet-imagenet", 0)


def test_within_takes_the_slash_form():
    assert splits.within("alexnet/imagenet") == splits.within("alexnet-imagenet")


def test_within_knows_only_published_networks():
    with pytest.raises(InputError) as error:
        splits.within("alexnet-imgnet")
    for part in ["'alexnet-imgnet'", "Did you mean 'alexnet-imagenet'?", "splits.partition"]:
        assert part in str(error.value)


def test_partition_of_a_published_network_is_within():
    units = catalog.NETWORKS["alexnet-places365"].units()
    assert splits.partition(units) == splits.within("alexnet-places365")


@pytest.mark.parametrize(
    ("n_units", "n_test"), [(0, 0), (1, 0), (4, 0), (5, 0), (6, 1), (10, 1), (15, 2), (25, 2)]
)
def test_partition_tests_a_tenth_rounded_with_ties_to_even(n_units, n_test):
    split = splits.partition(Unit("mine", "conv1", i) for i in range(n_units))
    assert (len(split.train), len(split.test)) == (n_units - n_test, n_test)


def test_partition_takes_a_tenth_of_every_layer():
    units = [Unit("mine", layer, i) for layer in ("a", "b", "c") for i in range(20)]
    assert [unit.layer for unit in splits.partition(units).test] == list("aabbcc")


def test_partition_does_not_depend_on_the_order_of_units():
    units = [Unit("mine", "conv1", i) for i in range(100)]
    shuffled = random.Random(0).sample(units, 100)
    test = set(splits.partition(units).test)
    assert set(splits.partition(shuffled).test) == test
    assert list(splits.partition(shuffled).train) == [u for u in shuffled if u not in test]
