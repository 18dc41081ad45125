"""The edition `mini`: planted units, simulated annotators, exemplars, and the shipped files."""

import io
import itertools
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

import milannotations
from milannotations import InputError, schema
from milannotations.editions import loading
from milannotations.editions.configs import list_configs
from milannotations.schema import SPLITS
from milannotations.synthetic import Formula, SceneDataset, World, edition, network, parse
from milannotations.synthetic.annotators import ANNOTATORS
from milannotations.synthetic.grammar import meaning, phrase
from milannotations.synthetic.networks import BANK
from milannotations.synthetic.unit_plan import NETWORKS, plan

HOME = Path(milannotations.__file__).parent
FILES = {split: HOME / "data" / "mini" / f"{split}.parquet" for split in SPLITS}


@pytest.fixture(scope="module")
def texts():
    columns = [c for c in schema.COLUMNS if c not in ("images", "masks")]
    return {split: milannotations.load("mini", split=split, columns=columns) for split in FILES}


@pytest.fixture(scope="module")
def units(texts):
    return [(split, row) for split, part in texts.items() for row in part]


def key(row):
    return f"{row['network']}/{row['layer']}/{row['unit']}"


# --- what ships


def test_size_row_groups_and_schema():
    assert sum(path.stat().st_size for path in FILES.values()) <= 12e6
    expected = schema.features().arrow_schema
    for path in FILES.values():
        found = parquet.ParquetFile(path)
        assert found.num_row_groups == 1
        assert found.schema_arrow.equals(expected)
        assert found.schema_arrow.metadata == expected.metadata


def test_a_picture_costs_its_bytes_once():
    """Files are as large as the distinct images, not as all of them."""
    for path in FILES.values():
        column = next(
            chunk
            for i in range(parquet.ParquetFile(path).metadata.num_columns)
            if (chunk := parquet.ParquetFile(path).metadata.row_group(0).column(i)).path_in_schema
            == "images.list.element.bytes"
        )
        table = parquet.read_table(path, columns=["images"])["images"].to_pylist()
        pictures = [image["bytes"] for row in table for image in row]
        assert sum(map(len, pictures)) > 2 * sum(map(len, set(pictures)))
        assert column.total_compressed_size < 1.1 * sum(map(len, set(pictures))) + 50_000


def test_load_dataset_opens_it_from_the_root():
    import datasets

    whole = datasets.load_dataset(str(HOME), "mini")
    assert list(whole) == ["train", "validation", "test"]
    assert whole["train"].features == schema.features()
    some = datasets.load_dataset(str(HOME), "mini", split="train+test", columns=["truth"])
    assert some.column_names == ["truth"]
    assert len(some) == len(whole["train"]) + len(whole["test"])
    filtered = datasets.load_dataset(
        str(HOME), "mini", split="test", filters=[("network", "==", "mini-sharp")]
    )
    assert 0 < len(filtered) < len(whole["test"])
    assert set(filtered["network"]) == {"mini-sharp"}
    streamed = next(iter(datasets.load_dataset(str(HOME), "mini", split="test", streaming=True)))
    assert streamed["images"][0].size == streamed["masks"][0].size == (64, 64)
    assert streamed["masks"][0].mode == "1"


def test_load_by_name_from_anywhere(tmp_path):
    code = (
        "import milannotations as m; d = m.load('mini', split='test'); "
        "print(len(d), d[0]['unit_kind'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [
        str(parquet.ParquetFile(FILES["test"]).metadata.num_rows),
        "synthetic",
    ]
    with pytest.raises(InputError, match="Did you mean 'mini'"):
        milannotations.load("minni")


def test_statistics_are_those_of_the_files(texts):
    shipped = json.loads((HOME / "data" / "mini" / "statistics.json").read_text())
    assert {"seed": shipped["seed"], **edition.statistics(texts)} == shipped


def test_the_card_counts_what_is_there(texts):
    card = (HOME / "README.md").read_text()
    table = (
        card.split(edition.TABLE_BEGINS)[1].split(edition.TABLE_ENDS)[0].strip().splitlines()[2:]
    )
    shown = {tuple(cell.strip() for cell in line.strip("| ").split("|")) for line in table}
    counts = defaultdict(Counter)
    for split, part in texts.items():
        for row in part:
            counts[row["network"], row["layer"]][split] += 1
    assert shown == {(*at, *(str(c[s]) for s in FILES)) for at, c in counts.items()}
    assert "simulated" in card
    assert "synthetic" in card.lower()
    # the digest in the front matter is what makes `datasets` notice new files
    from milannotations.utils.files import sha256

    assert sha256(*FILES.values()) in card


# --- the plan


def test_layers_and_splits(units):
    assert 1_100 <= len(units) <= 1_500
    layers = defaultdict(Counter)
    for split, row in units:
        layers[row["network"], row["layer"]][split] += 1
    assert len(layers) == 9
    for counts in layers.values():
        assert counts.total() >= 120
        assert counts["test"] >= 35
        assert counts["validation"] >= 10
    assert len({key(row) for _, row in units}) == len(units)


def test_seen_means_that_a_training_unit_has_the_formula(units):
    trained = {row["truth_formula"] for split, row in units if split == "train"}
    for _, row in units:
        formula = Formula.parse(row["truth_formula"])
        expected = None if not formula.means_something else row["truth_formula"] in trained
        assert row["seen"] is expected
    by_layer = defaultdict(Counter)
    for split, row in units:
        if split == "test":
            by_layer[row["network"], row["layer"]][row["seen"]] += 1
    for counts in by_layer.values():
        assert counts[True] >= 10
        assert counts[False] >= 10
        assert counts[None] >= 2


def test_every_kind_of_unit_is_there(units):
    kinds = Counter(Formula.parse(row["truth_formula"]).operator for _, row in units)
    assert min(kinds.values()) >= 10
    assert set(kinds) == {
        "IS", "AND", "OR", "POLY", "NEAR", "TOP", "BOTTOM", "LEFT", "RIGHT", "RANDOM", "DEAD",
    }  # fmt: skip
    for _, row in units:
        assert row["truth"] == phrase(Formula.parse(row["truth_formula"]))


def test_duplicates_repeat_another_unit_of_their_split(units):
    by_key = {key(row): (split, row) for split, row in units}
    repeated = [(split, row) for split, row in units if row["duplicate_of"] is not None]
    assert len(repeated) >= 9
    for split, row in repeated:
        of_split, of = by_key[row["duplicate_of"]]
        assert of_split == split
        assert of["duplicate_of"] is None
        assert (of["network"], of["layer"]) == (row["network"], row["layer"])
        for column in ("source_ids", "activations", "threshold", "truth_formula"):
            assert of[column] == row[column]


# --- networks


@pytest.fixture(scope="module")
def some_maps():
    return torch.stack([item["concepts"] for item in SceneDataset(24, seed=5)])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_a_module_with_layers(name, some_maps):
    net = network(name)
    assert [child for child, _ in net.named_children()] == ["layer1", "layer2", "layer3"]
    seen = {}
    hooks = [
        child.register_forward_hook(lambda m, i, out, at=at: seen.update({at: out}))
        for at, child in net.named_children()
    ]
    with torch.no_grad():
        output = net(some_maps)
    for hook in hooks:
        hook.remove()
    assert output.shape == (24, some_maps.shape[1])
    for layer, settings in NETWORKS[name].items():
        own = [planted for planted in plan() if planted.unit[:2] == (name, layer)]
        assert seen[layer].shape == (24, len(own), settings.grid, settings.grid)
        assert [planted.unit.unit for planted in own] == list(range(len(own)))


def test_activations_do_not_depend_on_batch_or_threads(some_maps):
    layer = network("mini-leaky").layer2
    with torch.no_grad():
        whole = layer(some_maps)
        parts = torch.cat([layer(part) for part in some_maps.split(5)])
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        single = layer(some_maps)
        torch.set_num_threads(before)
        floats = layer(some_maps.float())
    assert torch.equal(whole, parts)
    assert torch.equal(whole, single)
    assert torch.equal(whole, floats)
    assert torch.equal(whole * 1024, (whole * 1024).round())


def test_units_fire_where_their_formula_holds(some_maps):
    """In the network without noise no unit fires outside of its formula, and most fire inside."""
    layer = network("mini-sharp").layer1
    with torch.no_grad():
        activations = layer(some_maps)
    for planted in layer.units:
        at = activations[:, planted.unit.unit]
        if planted.formula.operator == "DEAD":
            assert not at.any()
        elif planted.formula.operator != "RANDOM":
            region = planted.formula.regions(some_maps)[:, None].float()
            cells = torch.nn.functional.max_pool2d(region, 64 // at.shape[-1])[:, 0].bool()
            assert not at[~cells].any()
            full = torch.nn.functional.avg_pool2d(region, 64 // at.shape[-1])[:, 0] == 1
            assert (at[full] > 0).all()


def test_ablating_units_of_a_concept_lowers_its_evidence(some_maps):
    net = network("mini-sharp")
    red = [p.unit.unit for p in net.layer1.units if "red" in p.formula.concepts]

    def ablate(module, inputs, output):
        output[:, red] = 0
        return output

    with torch.no_grad():
        before = net(some_maps)
        hook = net.layer1.register_forward_hook(ablate)
        after = net(some_maps)
        hook.remove()
    channel = milannotations.synthetic.CONCEPTS.index("red")
    assert after[:, channel].sum() < before[:, channel].sum()
    untouched = milannotations.synthetic.CONCEPTS.index("face")
    assert torch.allclose(after[:, untouched], before[:, untouched])


def test_another_seed_plants_other_units():
    assert [p.formula for p in plan(1)] != [p.formula for p in plan(0)]
    assert Counter(p.unit for p in plan(1)) == Counter(p.unit for p in plan(0))
    assert BANK in (2, 3) or all(BANK % n for n in range(2, int(BANK**0.5) + 1))
    with pytest.raises(InputError, match="Did you mean 'mini-sharp'"):
        network("mini-shrap")


# --- exemplars


def test_exemplars_by_a_slow_reading_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    activations = torch.randint(0, 60, (40, 3, 8, 8), generator=generator) / 1024
    activations[:, 2] = 0
    found = edition.compute_exemplars(activations, k=5)
    for unit in range(3):
        highest = [(-float(a[unit].max()), i) for i, a in enumerate(activations)]
        assert found.scenes[unit].tolist() == [i for _, i in sorted(highest)[:5]]
        values = sorted(activations[:, unit].flatten().tolist())
        at_most = [v for v in values if sum(w <= v for w in values) >= 0.99 * len(values)]
        assert found.thresholds[unit] == np.float32(at_most[0])
        for place, scene in enumerate(found.scenes[unit]):
            large = torch.nn.functional.interpolate(
                activations[scene, unit][None, None], size=(64, 64), mode="bilinear"
            )[0, 0]
            assert np.array_equal(found.masks[unit, place], (large > at_most[0]).numpy())
    assert not found.masks[2].any()  # a dead unit: the threshold is its maximum


def test_shipped_rows_are_what_the_code_makes(units):
    """A layer that is made again equals the shipped one to the bit."""
    shipped = milannotations.load("mini", split="test")
    index = {key(row): i for i, row in enumerate(texts_of(shipped))}
    scenes = edition.pool()
    maps = torch.from_numpy(np.stack([scene.concepts for scene in scenes]))
    layer = network("mini-coarse").layer3
    with torch.no_grad():
        found = edition.compute_exemplars(torch.cat([layer(part) for part in maps.split(64)]))
    checked = 0
    for planted in layer.units:
        if planted.split != "test":
            continue
        row = shipped[index[str(planted.unit)]]
        at = planted.unit.unit
        assert row["activations"] == found.activations[at].tolist()
        assert row["threshold"] == found.thresholds[at]
        for place, (image, mask) in enumerate(zip(row["images"], row["masks"], strict=True)):
            scene = scenes[found.scenes[at, place]]
            assert row["source_ids"][place] == scene.source_id
            assert np.array_equal(np.asarray(image), scene.image)
            assert np.array_equal(np.asarray(mask), found.masks[at, place])
        checked += 1
    assert checked >= 35


def texts_of(part):
    return part.select_columns(["network", "layer", "unit"])


@pytest.mark.slow
def test_the_whole_edition_is_made_again_to_the_bit():
    shipped = {s: milannotations.load("mini", split=s) for s in FILES}
    rows = {key(row): (s, i) for s, part in shipped.items() for i, row in enumerate(texts_of(part))}
    made = 0
    for split, member in edition.rows():
        at_split, at = rows[key(member)]
        assert at_split == split
        row = shipped[split][at]
        for column in schema.COLUMNS:
            if column in ("images", "masks"):
                for one, other in zip(member[column], row[column], strict=True):
                    assert np.array_equal(one, np.asarray(other))
            elif column in ("activations", "threshold"):
                assert np.array_equal(np.float32(member[column]), np.float32(row[column]))
            else:
                assert member[column] == row[column], (key(member), column)
        made += 1
    assert made == len(rows)


def test_build_writes_an_edition_and_leaves_other_folders_alone(tmp_path, monkeypatch):
    """`build` runs on a smaller pool and one network."""
    small = list(edition.rows(0, ["mini-coarse"], count=48))
    monkeypatch.setattr(edition, "rows", lambda seed: iter(small))
    out = edition.build(tmp_path / "edition")
    assert list_configs(out) == {"mini": ["train", "validation", "test"]}
    assert len(milannotations.load(out, "mini", split="train+validation+test")) == len(small)
    edition.build(out)  # over itself
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        edition.build(other)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


# --- simulated annotators


def test_phrases_are_near_those_of_people(units):
    """Beside resnet152-imagenet (reference-numbers.md): 4.59 words, .72 distinct, ..."""
    from rouge_score.rouge_scorer import RougeScorer

    rows = [row for _, row in units]
    phrases = [text for row in rows for text in row["descriptions"]]
    lengths = [len(text.split()) for text in phrases]
    assert (min(lengths), max(lengths)) == (4, 9)
    assert 4.3 <= np.mean(lengths) <= 5.5
    assert 0.6 <= len(set(phrases)) / len(phrases) <= 0.85
    top = sum(n for _, n in Counter(phrases).most_common(10)) / len(phrases)
    assert 0.02 <= top <= 0.12
    pairs = [a == b for row in rows for a, b in itertools.combinations(row["descriptions"], 2)]
    assert 0.001 <= np.mean(pairs) <= 0.02
    rouge = RougeScorer(["rougeL"])
    agreement = [
        np.mean([rouge.score(a, b)["rougeL"].fmeasure for a, b in itertools.permutations(d, 2)])
        for d in (row["descriptions"] for row in rows[::4])
    ]
    assert 0.08 <= np.mean(agreement) <= 0.25


def test_annotators_differ_and_err_but_know_the_answer(units):
    exact = {annotator.name: [] for annotator in ANNOTATORS}
    for _, row in units:
        formula = Formula.parse(row["truth_formula"])
        assert row["annotator_ids"] == list(exact)
        assert all(name.startswith("simulated") for name in row["annotator_ids"])
        for name, text in zip(row["annotator_ids"], row["descriptions"], strict=True):
            assert not parse(text).unknown, text
            if formula.means_something:
                exact[name].append(parse(text).same_as(meaning(formula)))
    careful, brief, wordy = (np.mean(values) for values in exact.values())
    assert 0.95 > careful > brief > wordy > 0.4


def test_annotators_are_seeded():
    formula = Formula.of("AND", "red", "circle")
    for annotator in ANNOTATORS:
        drawn = {annotator.describe(formula, ["star"], [0, seed]) for seed in range(40)}
        again = {annotator.describe(formula, ["star"], [0, seed]) for seed in range(40)}
        assert drawn == again
        assert len(drawn) > 10


# --- looking


def test_sheets_show_units_and_scenes(texts):
    from milannotations.utils import contact_sheet as pictures

    rows = loading.select("mini", "mini-sharp", "layer2", count=3, seed=1)
    assert len(rows) == 3
    assert set(rows["layer"]) == {"layer2"}
    sheet = pictures.unit_sheet(rows, exemplars=4)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    assert sheet.width > 4 * 96
    lines = pictures.unit_lines(rows[0])
    assert lines[2].startswith("simulated annotators: ")
    assert len(set(sheet.get_flattened_data())) > 100
    image = World().scene(0, 0).image
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:20, 10:20] = True
    shown = pictures.draw_mask(image, mask)
    assert np.array_equal(shown[mask], image[mask])
    assert shown[40, 40].sum() < image[40, 40].sum()
    with pytest.raises(InputError, match="mask"):
        pictures.draw_mask(image, mask[:10])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("mini-sharpp",), "Did you mean 'mini-sharp'"),
        (("mini-sharp", "layer9"), "No layer 'layer9'"),
        (("mini-sharp", "layer1", 999), "No unit '999'"),
    ],
)
def test_asking_for_units_that_are_not_there(asked, says):
    with pytest.raises(InputError, match=says):
        loading.select("mini", *asked)
