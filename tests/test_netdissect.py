"""Network Dissection: counts by category, tables, charts, and networks of known answers."""

import csv

import brodens
import numpy as np
import pytest
import torch
from PIL import Image

import baselines
from baselines import Context, Description, netdissect
from baselines.shared import concept_set_counts
from baselines.shared.category_overlap import CategoryOverlap
from baselines.shared.probe_statistics import ProbeStatistics
from leaderboard.evaluation import file_formats
from milannotations import InputError, Unit, schema
from milannotations.exemplars import Preprocessing, RunConfig, load_model
from milannotations.probes import Concept, ProbeItems, open_probe

SIDE = 40
COLORS = {
    "red-c": (255, 0, 0),
    "green-c": (0, 255, 0),
    "blue-c": (0, 0, 255),
    "yellow-c": (255, 255, 0),
}
CONCEPTS = (*(Concept(name, "color") for name in COLORS), Concept("night_sky-s", "scene"),
            Concept("dot", "object"), Concept("ring", "object"))  # fmt: skip
NIGHT, DOT = 5, 6


class Painted:
    """Gray images, most with a dot of each color; dark ones are labelled as night."""

    name = "painted"
    concepts = CONCEPTS

    def __init__(self, count=24, seed=0):
        draw = np.random.default_rng(seed)
        self.source = {"sha256": f"painted {count} {seed}"}
        self.pixels = np.full((count, SIDE, SIDE, 3), 128, np.uint8)
        self.planes = np.zeros((count, 3, SIDE, SIDE), np.int32)
        for i, (pixels, planes) in enumerate(zip(self.pixels, self.planes, strict=True)):
            if i % 3 == 0:
                pixels[:] = 20
                planes[1] = NIGHT
            for place, color in enumerate(COLORS.values()):
                if draw.random() < 0.8:
                    half = SIDE // 2  # a quarter of the picture for each colour
                    row, column = draw.integers(0, half - 2, 2) + half * np.array(divmod(place, 2))
                    pixels[row : row + 2, column : column + 2] = color
                    planes[0, row : row + 2, column : column + 2] = place + 1
                    planes[2, row : row + 2, column : column + 2] = DOT

    def __len__(self):
        return len(self.pixels)

    def source_id(self, i):
        return f"{i}.png"

    def image(self, i):
        return Image.fromarray(self.pixels[i])

    def labels(self, i, size):
        rows, columns = ((np.arange(n) * 2 + 1) * SIDE // (2 * n) for n in size)
        return self.planes[i][:, rows[:, None], columns]


class Filters(torch.nn.Module):
    """Network whose units compute red, green, blue, yellow, "green or blue" and nothing."""

    def __init__(self, preprocessing):
        super().__init__()
        self.units = torch.nn.Conv2d(3, 6, 1)
        weights = torch.tensor(
            [[2, -2, -2], [-2, 2, -2], [-2, -2, 2], [2, 2, -2], [-2, 1, 1], [0, 0, 0]]
        ).float()
        biases = torch.tensor([-1.0, -1, -1, -3, -0.5, -1])
        mean, std = (torch.tensor(v) for v in (preprocessing.mean, preprocessing.std))
        with torch.no_grad():
            self.units.weight[:] = (weights * std)[:, :, None, None]
            self.units.bias[:] = biases + weights @ mean

    def forward(self, images):
        return torch.relu_(self.units(images))


def filters(probe, batch_size=8, **options):
    preprocessing = Preprocessing.imagenet(SIDE)
    items = ProbeItems(probe, preprocessing, size=(SIDE, SIDE))
    run = RunConfig(batch_size=batch_size, device="cpu", read="post")
    return ProbeStatistics(
        "filters", Filters(preprocessing), items, probe, ["units"], run=run, **options
    )


def units(*rows, network="filters", layer="units"):
    from datasets import Dataset

    return Dataset.from_list(
        [schema.row(Unit(network, layer, row)) for row in rows], features=schema.features()
    )


@pytest.fixture(scope="module")
def probing():
    return filters(Painted())


# ---- the definition


def bilinear(maps, size):
    """Resize (n, h, w), half-pixel, clamped, in float64."""
    for axis, side in ((1, size[0]), (2, size[1])):
        old = maps.shape[axis]
        place = np.clip((np.arange(side) + 0.5) * old / side - 0.5, 0, old - 1)
        low = np.minimum(place.astype(int), old - 1)
        share = (place - low).reshape(-1, *[1] * (2 - axis))
        high = np.minimum(low + 1, old - 1)
        maps = maps.take(low, axis) * (1 - share) + maps.take(high, axis) * share
    return maps


def by_definition(maps, thresholds, planes, concepts):
    """Return IoUs (unit, concept), summed over images that label the concept's category."""
    names = netdissect.list_categories(concepts)
    size = planes[0].shape[1:]
    both, union = np.zeros((2, maps.shape[1], len(concepts)))
    for own, labels in zip(maps, planes, strict=True):
        active = bilinear(own.astype(np.float64), size) > thresholds[:, None, None]
        where = np.stack([(labels == c + 1).any(0) for c in range(len(concepts))])
        for name in names:
            members = [c for c, each in enumerate(concepts) if each.category == name]
            if not where[members].any():
                continue
            for c in members:
                both[:, c] += (active & where[c]).sum((1, 2))
                union[:, c] += (active | where[c]).sum((1, 2))
    return both / np.maximum(union, 1)


def random_maps(images=10, units=7, side=6, seed=0):
    return torch.randn(images, units, side, side, generator=torch.Generator().manual_seed(seed))


def tally(planes, maps, thresholds, parts):
    of = np.array([netdissect.list_categories(CONCEPTS).index(c.category) for c in CONCEPTS])
    made = CategoryOverlap(thresholds, of)
    for ids in parts:
        made.update(ids, maps[ids], planes[ids])
    return made


def test_ious_are_those_of_the_definition():
    probe, maps, thresholds = Painted(10), random_maps(), torch.linspace(0.3, 1.5, 7)
    planes = torch.from_numpy(np.stack([probe.labels(i, (20, 24)) for i in range(10)]))
    of = np.array([0, 0, 0, 0, 1, 2, 2])
    found = tally(planes, maps, thresholds, torch.arange(10).split(4)).result()
    made = netdissect.match_concepts(
        [c.name for c in CONCEPTS], ("color", "scene", "object"), of, found
    )
    expected = by_definition(maps.numpy(), thresholds.numpy(), planes.numpy(), CONCEPTS)
    # a picture by day says nothing about scenes, so it does not count against them
    assert 0 < found.intersection[0, 8] < found.intersection[0, 9] <= found.unit[0]
    for each in made.units:
        for c, name in enumerate(made.categories):
            members = (of == c).nonzero()[0]
            best = members[expected[each.unit, members].argmax()]
            match = each.matches[name]
            assert match.label == CONCEPTS[best].name
            assert match.iou == pytest.approx(expected[each.unit, best], abs=1e-6)
            union = match.truth + match.activation - match.intersect
            assert match.iou == match.intersect / union
        assert each.score == max(match.iou for match in each.matches.values())


def test_neither_batches_nor_parts_matter():
    probe, maps, thresholds = Painted(10), random_maps(), torch.linspace(0.3, 1.5, 7)
    planes = torch.from_numpy(np.stack([probe.labels(i, (SIDE, SIDE)) for i in range(10)]))
    whole = tally(planes, maps, thresholds, [torch.arange(10)]).result()
    one = tally(planes, maps, thresholds, torch.arange(4).split(1))
    other = tally(planes, maps, thresholds, torch.arange(4, 10).split(5))
    again = tally(planes, maps, thresholds, [])
    again.load_state_dict(other.state_dict())
    one.merge(again)
    for name, values in vars(whole).items():
        assert np.array_equal(values, vars(one.result())[name])
    assert one.nbytes == one.estimate(7, 6, 6)


# ---- known answers


def test_hand_built_filters_are_named(probing):
    made = netdissect.dissect(probing)["units"]
    assert [each.label for each in made.units[:4]] == list(COLORS)
    assert [each.category for each in made.units[:4]] == ["color"] * 4
    assert [each.score for each in made.units[:4]] == [1.0] * 4
    mixed = made.units[4]
    assert mixed.label in ("green-c", "blue-c")
    assert 0.3 < mixed.score < 0.7
    assert not made.units[5].active


def test_answers_are_clean_names_with_ious(probing):
    rows = units(3, 0, 5, 4)
    context = Context(probe_statistics={"filters": probing})
    answers = baselines.run(baselines.get("netdissect"), rows, context)
    assert [answer.text for answer in answers[:2]] == ["yellow", "red"]
    assert answers[0].senses == (("yellow", 1.0),)
    assert answers[2] == Description.abstained()
    strict = baselines.get("netdissect", detectors_only=True, threshold=0.9)
    answers = baselines.run(strict, rows, context)
    assert [answer.status for answer in answers] == ["ok", "ok", "abstained", "abstained"]
    assert baselines.run(strict, rows.select([]), context) == []


def test_formulas_are_named_too(probing):
    context = Context(probe_statistics={"filters": probing})
    answers = baselines.run(baselines.get("compexp"), units(4, 1, 5), context)
    assert answers[0].senses == (("green or blue", 1.0),)
    assert answers[1].senses == (("green", 1.0),)
    assert answers[2] == Description.abstained()
    alone = baselines.get("compexp", length=1, categories="scene, object")
    [answer] = baselines.run(alone, units(1), context)
    assert answer.text == "dot"
    assert 0.2 < answer.senses[0][1] < 0.3
    with pytest.raises(
        InputError, match="categories weather; the probe dataset has color, object, scene"
    ):
        baselines.run(baselines.get("compexp", categories="weather"), units(1), context)
    with pytest.raises(InputError, match="expected at least 1"):
        baselines.get("compexp", length=0)


@pytest.mark.parametrize("name", ["netdissect", "compexp"])
def test_the_contract(probing, name):
    rows = units(*range(6))
    context = Context(probe_statistics={"filters": probing})
    answers = baselines.run(baselines.get(name), rows, context)
    backwards = rows.select(range(5, -1, -1))
    assert baselines.run(baselines.get(name), backwards, context, batch_size=2) == answers[::-1]
    for batch_size in (1, 24):
        other = Context(probe_statistics={"filters": filters(Painted(), batch_size)})
        assert baselines.run(baselines.get(name), rows, other, batch_size=1) == answers
    with pytest.raises(InputError, match="not available"):
        baselines.run(baselines.get(name), rows, Context(probe_statistics={"other": probing}))
    with pytest.raises(InputError, match="not among the units"):
        baselines.run(baselines.get(name), units(6), context)


def test_what_was_counted_is_read_from_the_cache(tmp_path, probing):
    made = netdissect.dissect(filters(Painted(), cache=tmp_path))
    activity = concept_set_counts.count_concept_sets(filters(Painted(), cache=tmp_path))["units"]
    again = filters(Painted(), cache=tmp_path)
    again._compute = None  # nothing is computed
    assert netdissect.dissect(again) == made == netdissect.dissect(probing)
    for name, values in vars(concept_set_counts.count_concept_sets(again)["units"]).items():
        assert np.array_equal(values, vars(activity)[name])


# ---- tables


def test_a_table_comes_back_and_is_read_as_predictions(tmp_path, probing):
    made = netdissect.dissect(probing)["units"]
    path = tmp_path / "units.csv"
    made.write(path)
    again = netdissect.read(path)
    assert again == made
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["score"]) for row in rows] == sorted(
        (each.score for each in made.units), reverse=True
    )
    layout = file_formats.recognise(list(rows[0]), path)
    assert layout.name == "NetDissect"
    read = {row["unit"]: row for row in (layout.adapt(cells, "here") for cells in rows)}
    assert read[3] == {"unit": 3, "description": "yellow", "score": 1.0}
    assert sorted(read) == list(range(6))


def test_a_table_has_the_columns_of_real_ones(tmp_path, real):
    source = real / "descriptions" / "netdissect" / "caffe_reference_imagenet.csv"
    path = tmp_path / "again.csv"
    netdissect.read(source).write(path)
    with open(source, newline="") as theirs, open(path, newline="") as ours:
        theirs, ours = list(csv.DictReader(theirs)), list(csv.DictReader(ours))
    assert list(theirs[0]) == list(ours[0])
    by_unit = {row["unit"]: row for row in ours}
    for row in theirs:
        for column, cell in row.items():
            said = by_unit[row["unit"]][column]
            assert said == cell or float(said) == pytest.approx(float(cell), rel=1e-12)
    scores = [float(row["score"]) for row in ours]
    assert scores == [float(row["score"]) for row in theirs]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ResNet-152-model_imagenet.csv", (2048, 1325, 197)),
        ("caffe_reference_imagenet.csv", (256, 97, 50)),
        ("resnet50_imagenet_layer1.csv", (256, 61, 20)),
    ],
)
def test_real_tables_have_the_published_counts(real, name, counts):
    made = netdissect.read(real / "descriptions" / "netdissect" / name)
    found = made.summary()
    assert (found.units, found.detectors, found.concepts) == counts
    assert sum(found.by_category.values()) == found.detectors
    assert [each.unit for each in made.units] == list(range(counts[0]))
    for each in made.units:
        for match in each.matches.values():
            union = match.truth + match.activation - match.intersect
            assert match.iou == pytest.approx(match.intersect / union, rel=1e-6)
        assert each.score == pytest.approx(max(m.iou for m in each.matches.values()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unit,label\n1,red\n", "column category is missing"),
        ("unit,category,label,score,a-label,a-iou\n", "column a-truth is missing"),
        ("", "column unit is missing"),
        ("HEAD\n1,a,red,1,red,1,1,1\n", "line 2"),
        ("HEAD\n1,a,red,1,red,1,1,x,1\n", "line 2: could not convert"),
        ("HEAD\n0,a,red,1,red,1,1,1,1\n", "line 2: unit 0"),
        ("HEAD\n1,b,red,1,red,1,1,1,1\n", "line 2: unit 1 of b"),
    ],
)
def test_what_is_no_table(write_file, text, says):
    head = "unit,category,label,score,a-label,a-truth,a-activation,a-intersect,a-iou"
    path = write_file("table.csv", text.replace("HEAD", head))
    with pytest.raises(InputError, match=says):
        netdissect.read(path)


def test_the_chart_has_a_bar_a_concept(tmp_path, probing):
    made = netdissect.dissect(probing)["units"]
    made.chart(tmp_path / "units.png")
    pixels = np.asarray(Image.open(tmp_path / "units.png").convert("RGB")).reshape(-1, 3)
    assert (pixels == [0x43, 0x63, 0xD8]).all(1).mean() > 0.05  # the bars of the first category
    made.chart(tmp_path / "none.png", threshold=1)
    assert Image.open(tmp_path / "none.png").size[0] > 500


# ---- made-up Broden, mini networks


class Random(torch.nn.Module):
    """A convolution of random weights."""

    def __init__(self, units=8):
        super().__init__()
        self.units = torch.nn.Conv2d(3, units, 5, stride=4, padding=2)
        generator = torch.Generator().manual_seed(0)
        torch.nn.init.normal_(self.units.weight, generator=generator)

    def forward(self, images):
        return self.units(images)


@pytest.mark.parametrize("quantile", [0.9, 0.995])
def test_ious_on_broden_are_those_of_the_definition(tmp_path, quantile):
    """Test against thresholds by torch's quantile and label planes read again."""
    brodens.broden(tmp_path, pictures=8)
    probe = open_probe(f"broden:{tmp_path}")
    items = ProbeItems(probe, Preprocessing.imagenet(32), size=(28, 28))
    model = Random()
    run = RunConfig(batch_size=3, device="cpu")
    found = netdissect.dissect(
        ProbeStatistics("random", model, items, probe, ["units"], run=run), quantile
    )["units"]
    with torch.no_grad():
        maps = model(torch.stack([items[i]["image"] for i in range(8)])).numpy()
    values = np.sort(maps.transpose(1, 0, 2, 3).reshape(8, -1).astype(np.float64))
    # the same quantile between the same values (Hazen's), to float32
    thresholds = np.quantile(values, float(np.float32(quantile)), axis=1, method="hazen")
    planes = [probe.labels(i, (28, 28)) for i in range(8)]
    expected = by_definition(maps, thresholds.astype(np.float32), planes, probe.concepts)
    numbers = {concept: c for c, concept in enumerate(probe.concepts)}
    assert len(found.categories) == 6
    for each in found.units:
        for category, match in each.matches.items():
            own = [c for c, concept in enumerate(probe.concepts) if concept.category == category]
            assert match.iou == pytest.approx(max(expected[each.unit, own]), abs=1e-6)
            number = numbers[Concept(match.label, category)]
            assert match.iou == pytest.approx(expected[each.unit, number], abs=1e-6)


@pytest.mark.slow
def test_units_of_mini_networks_are_named_by_their_concepts():
    """Test planted concepts and pairs of them joined by AND, which units match only roughly."""
    from baselines.shared.probe_statistics import mini_probe_statistics
    from milannotations.synthetic import unit_plan

    context = Context(probe_statistics=mini_probe_statistics())
    planted = [each for each in unit_plan.plan() if each.formula.operator in ("IS", "AND")]
    singles = [each for each in planted if each.formula.operator == "IS"][:60]
    pairs = [each for each in planted if each.formula.operator == "AND"][:60]

    def said(name, chosen):
        from datasets import Dataset

        rows = Dataset.from_list([schema.row(each.unit) for each in chosen],
                                 features=schema.features())  # fmt: skip
        return baselines.run(baselines.get(name), rows, context)

    named = sum(
        answer.text == each.formula.concepts[0].replace("_", " ")
        for each, answer in zip(singles, said("netdissect", singles), strict=True)
    )
    both = sum(
        set(each.formula.concepts) == set((answer.text or "").split(" and "))
        for each, answer in zip(pairs, said("compexp", pairs), strict=True)
    )
    print(f"\nnetdissect names {named} of {len(singles)}, compexp {both} of {len(pairs)}")
    assert named >= 54
    assert both >= 54


# ---- real networks and images


class Shuffled:
    """Probe with its label maps permuted among the images."""

    def __init__(self, probe, seed):
        self.probe, self.name, self.concepts = probe, probe.name, probe.concepts
        self.source = {**probe.source, "shuffled": seed}
        self.order = np.random.default_rng(seed).permutation(len(probe))

    def __len__(self):
        return len(self.probe)

    def source_id(self, i):
        return self.probe.source_id(i)

    def image(self, i):
        return self.probe.image(i)

    def labels(self, i, size):
        return self.probe.labels(int(self.order[i]), size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "weights", "layer", "times"),
    [
        ("resnet18", "resnet18_imagenet_to_layer3.safetensors", "layer3", 1.5),
        ("squeezenet1_1", "squeezenet1_1_imagenet.safetensors", "features.12", None),
    ],
)
def test_real_networks_detect_more_than_among_shuffled_labels(real, model, weights, layer, times):
    loaded = load_model(f"torchvision:{model}", weights=real / "weights" / weights)
    probe = open_probe(f"coco:{real / 'images' / 'coco-mini'}")
    found, kept = [], {}
    for each in (probe, *(Shuffled(probe, seed) for seed in range(5))):
        items = ProbeItems(each, loaded.preprocessing)
        run = RunConfig(missing=loaded.missing)
        probing = ProbeStatistics(model, loaded.model, items, each, [layer], run=run)
        probing._results |= kept  # the pictures are the same, and so are the thresholds
        probing.thresholds()
        kept = dict(probing._results)
        found.append(netdissect.dissect(probing)[layer])
    own, *shuffles = [each.summary().detectors for each in found]
    print(f"\n{model} {layer}: {own} detectors, {shuffles} among shuffled label maps")
    best = sorted(found[0].units, key=lambda each: -each.score)[:20]
    print(", ".join(f"{each.unit} {each.label} {each.score:.3f}" for each in best))
    assert own > max(shuffles)
    assert times is None or own >= times * np.mean(shuffles)
