"""Interface of methods, registry, and the descriptions of each method."""

import io
import re
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import clips
import numpy as np
import pytest
import torch
import vlms
from PIL import Image

import baselines
from baselines import Context, Description, MethodSpec
from baselines.framework import columns, context, registry
from baselines.framework.units import EXEMPLAR_COLUMNS, unit_keys
from baselines.shared import text as words
from baselines.shared.probe_statistics import ProbeStatistics
from leaderboard.evaluation.floors import floor_descriptions
from leaderboard.evaluation.predictions import Prediction, Predictions
from leaderboard.evaluation.references import References
from leaderboard.metrics.text import normalise
from milannotations import InputError, Unit, schema
from milannotations.editions.writing import write_config
from milannotations.exemplars import Preprocessing
from milannotations.probes import Concept, ProbeItems

README = Path(baselines.__file__).parent / "README.md"
GUIDE = Path(__file__).parents[1] / "docs/write-a-method.md"
K = 3


class Colours(torch.nn.Module):
    """Encoder of colors that counts the images it is given."""

    def __init__(self):
        super().__init__()
        self.pictures = 0

    def forward(self, images):
        assert images.dtype == torch.float32
        assert images.shape[1:] == (3, 64, 64)
        assert 0 <= images.min() <= images.max() <= 1
        self.pictures += int((images.flatten(1).sum(1) > 0).sum())  # the rest is padding
        halves = torch.nn.functional.avg_pool2d(images, 32)
        return [halves, torch.nn.functional.avg_pool2d(images, 8)]


def encoded(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def picture(color, side=64, seed=0):
    noise = np.random.default_rng(seed).integers(0, 20, (side, side, 3))
    return encoded(np.clip(np.array(color) + noise, 1, 255).astype(np.uint8))


def mask(full=True, side=64):
    pixels = np.zeros((side, side), dtype=bool)
    pixels[: side // 2, : side // 2] = full
    return encoded(pixels)


COLORS = {
    "red": (200, 10, 10),
    "green": (10, 200, 10),
    "blue": (10, 10, 200),
    "yellow": (200, 200, 10),
    "white": (220, 220, 220),
}


def unit_row(layer, unit, color, descriptions=(), *, full=True, seed=None, side=64, **more):
    if seed is None:
        seed = 1000 * unit
    return schema.row(
        Unit("tiny", layer, unit),
        images=[picture(COLORS[color], side, seed + i) for i in range(K)],
        masks=[mask(full, side) for _ in range(K)],
        source_ids=[f"{color}-{seed + i}" for i in range(K)],
        activations=[3.0, 2.0, 1.0],
        threshold=0.5,
        descriptions=list(descriptions),
        annotator_ids=[f"simulated-{i}" for i in range(len(descriptions))],
        unit_kind="synthetic",
        polarity="+",
        truth=more.pop("truth", f"{color} objects of any shape"),
        truth_formula=more.pop("truth_formula", color),
        seen=True,
        **more,
    )


TRAIN = [
    unit_row("a", 0, "red", ["red things", "Red things.", "crimson circles"]),
    unit_row("a", 1, "green", ["green things", "grass", "green grass things"]),
    unit_row("a", 2, "blue", ["blue things", "red things", "blue sea"]),
    unit_row("b", 0, "yellow", ["yellow", "yellow", "sun"]),
    unit_row("b", 1, "white", ["nothing at all"] * 3, full=False, truth_formula="DEAD"),
    unit_row("b", 2, "white", []),
]
TEST = [
    # 10 shows the very pictures of training unit 0
    unit_row("a", 10, "red", ["red", "red", "red"], seed=0),
    unit_row("a", 11, "blue", ["blue", "blue", "blue"], side=48),
    unit_row("b", 10, "green", ["green", "green", "green"], truth_formula="POLY(text, star)"),
    unit_row("b", 11, "yellow", ["x", "y", "z"], full=False, truth_formula="DEAD"),
    unit_row("c", 10, "yellow", ["x", "y", "z"], truth_formula=None),
    unit_row("c", 11, "red", ["x", "y", "z"], duplicate_of="tiny/c/10"),
]


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editions") / "tiny"
    write_config(folder, "tiny", {"train": TRAIN, "test": TEST})
    return folder


@pytest.fixture
def units(edition):
    return baselines.open_units(edition, split="test")


@pytest.fixture
def training(edition):
    return baselines.open_training(edition)


@pytest.fixture
def method_file(write_file):
    """Return a function that writes a method whose `describe` has the given body."""

    def write(body, name="stranger.py", kind="method", more=""):
        return write_file(
            name,
            "from baselines import Description, MethodSpec\n"
            "from milannotations import InputError\n"
            f"SPEC = MethodSpec('stranger', '1', '{kind}', 'A stranger', {more})\n"
            "class Stranger:\n"
            "    spec = SPEC\n"
            "    def describe(self, units, context):\n"
            f"        {body}\n"
            "def create():\n"
            "    return Stranger()\n",
        )

    return write


# one contract for every method ------------------------------------------------------------

MINI = {"model": "mini"}
OPTIONS = {
    "nearest": {"encoder": Colours()},
    **dict.fromkeys(("milan", "milan-beam", "milan-greedy"), MINI),
}
REFUSED = {"human"}
NAMES = [spec.name for spec in baselines.specs()]
RUN = [name for name in NAMES if name not in REFUSED]


class Painted:
    """Probe dataset of images with one color in each half; each color is a concept."""

    name = "painted"
    concepts = tuple(Concept(color, "color") for color in COLORS)

    def __len__(self):
        return 60

    def source_id(self, i):
        return f"painted-{i}"

    def halves(self, i):
        return i % len(COLORS), (i // len(COLORS) + 1 + i) % len(COLORS)

    def image(self, i):
        pixels = np.zeros((16, 16, 3), np.uint8)
        for half, color in enumerate(self.halves(i)):
            pixels[:, 8 * half : 8 * half + 8] = list(COLORS.values())[color]
        return Image.fromarray(pixels)

    def labels(self, i, size):
        made = np.zeros((1, *size), np.int32)
        for half, color in enumerate(self.halves(i)):
            made[0, :, half * size[1] // 2 : (half + 1) * size[1] // 2] = color + 1
        return made

    source = {"probe": "painted"}  # noqa: RUF012


class Layers(torch.nn.Module):
    """Activations of the network `tiny`: twelve units in each of three layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (torch.nn.Conv2d(n, 12, 1) for n in (3, 12, 12))

    def forward(self, images):
        return self.c(self.b(self.a(images)))


def probing():
    plain = Preprocessing(lambda picture: torch.zeros(3, 16, 16), (0.0,) * 3, (1.0,) * 3)
    items = ProbeItems(Painted(), plain, (16, 16))
    return ProbeStatistics("tiny", Layers(), items, Painted(), ["a", "b", "c"])


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """Give methods that need a third-party model a tiny one of the same architecture."""
    folder = tmp_path_factory.mktemp("models")
    OPTIONS["captioner"] = {"model": str(vlms.llava(folder / "vlm"))}
    OPTIONS["clip-dissect"] = {"model": str(clips.write(folder / "clip", clips.alphabet()))}


def make(name):
    return baselines.get(name, **OPTIONS.get(name, {}))


def everything(training, seed=0):
    return Context(
        seed=seed,
        training=training,
        networks={"tiny": lambda images: {}},
        probe_statistics={"tiny": probing()},
    )


@pytest.fixture(params=RUN)
def name(request):
    return request.param


def test_one_answer_a_unit_in_order(name, units, training):
    answers = baselines.run(make(name), units, everything(training))
    assert len(answers) == len(units)
    assert all(isinstance(answer, Description) for answer in answers)
    backwards = units.select(range(len(units) - 1, -1, -1))
    assert baselines.run(make(name), backwards, everything(training)) == answers[::-1]


def test_the_same_again_and_whatever_the_batch(name, units, training):
    answers = baselines.run(make(name), units, everything(training, seed=3))
    for batch_size in (1, 2, 100):
        context = everything(training, seed=3)
        assert baselines.run(make(name), units, context, batch_size=batch_size) == answers
    method = make(name)  # made once, run twice, with one memory
    assert baselines.run(method, units, context) == answers
    assert baselines.run(method, units, context) == answers


def test_empty_input(name, units, training):
    none = units.select([])
    assert baselines.run(make(name), none, everything(training)) == []
    visible = none.select_columns(list(make(name).spec.columns))
    assert list(make(name).describe(visible, everything(training))) == []


def test_spec_is_complete_and_strict_json(name):
    import json

    spec = make(name).spec
    assert spec.name == name
    assert json.loads(json.dumps(spec.to_dict(), allow_nan=False))["title"]


def test_description_becomes_a_checked_prediction(name, units, training):
    answers = baselines.run(make(name), units, everything(training))
    rows = [
        Prediction(unit, *row)
        for unit, answer in zip(unit_keys(units), answers, strict=True)
        for row in answer.rows()
    ]
    assert len(Predictions(tuple(rows))) == len(units)


def test_only_the_seed_of_random_descriptions_matters(units, training):
    def answers(name, seed):
        return baselines.run(make(name), units, everything(training, seed))

    for name in RUN:
        differs = any(answers(name, 0) != answers(name, seed) for seed in range(1, 6))
        assert differs == (name == "random-description")


# columns that a method sees -----------------------------------------------------------------------


def test_no_method_sees_the_answers(edition, method_file):
    body = "return [Description.of(' '.join(units.column_names))] * len(units)"
    for _, said in baselines.describe(edition, method_file(body), split="test"):
        assert tuple(said.text.split()) == columns.VISIBLE_COLUMNS
        assert not set(said.text.split()) & set(columns.HIDDEN_COLUMNS)
    assert set(columns.VISIBLE_COLUMNS) | set(columns.HIDDEN_COLUMNS) == set(schema.COLUMNS)


def test_rows_hold_no_answer_either(edition, method_file):
    body = "return [Description.of(' '.join([*row, *units.features])) for row in units]"
    for _, said in baselines.describe(edition, method_file(body), split="test"):
        assert not set(said.text.split()) & set(columns.HIDDEN_COLUMNS)


def test_training_units_have_words_and_no_truth(training):
    names = Context(training=training).training.column_names
    assert "descriptions" in names
    assert not {"truth", "truth_formula", "seen", "duplicate_of"} & set(names)


def test_a_reference_that_requires_the_truth_sees_it(edition, method_file):
    body = "return [Description.of(truth) for truth in units['truth']]"
    path = method_file(body, kind="reference", more="requires=('truth',)")
    said = baselines.describe(edition, path, split="test")
    assert said[0][1].text == "red objects of any shape"


def test_the_truth_is_for_references_alone():
    with pytest.raises(ValueError, match="only a reference"):
        MethodSpec("peek", "1", "method", "Peeks", requires=("truth",))


def test_floors_decode_no_image(edition, monkeypatch):
    import datasets

    def refuse(*_, **__):
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    for name in ("constant", "most-common", "random-description", "truth"):
        assert len(baselines.describe(edition, name, split="test")) == len(TEST)


# finding methods --------------------------------------------------------------------------


def test_every_name_is_its_file():
    folder = Path(baselines.__file__).parent
    assert {"constant", "most-common", "random-description", "nearest", "truth"} <= set(RUN)
    assert all((folder / f"{name.replace('-', '_')}.py").exists() for name in NAMES)
    kinds = [spec.kind for spec in baselines.specs()]
    assert kinds == sorted(kinds, key=("floor", "method", "reference").index)


def test_listing_is_light():
    code = (
        "import sys, baselines; names = [s.name for s in baselines.specs()]; "
        "heavy = {'torch', 'datasets', 'numpy', 'pandas', 'PIL'} & set(sys.modules);"
        "print(len(names), heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1)[1].strip() == "set()"


def test_did_you_mean():
    with pytest.raises(InputError, match=r"No method 'neerest'\. Did you mean 'nearest'\?"):
        baselines.get("neerest")
    for name in ("most_common", "shared", "framework", "", "../nearest"):
        with pytest.raises(InputError, match=r"No (method|file)"):
            baselines.get(name)


def test_unknown_option_names_those_there_are():
    with pytest.raises(InputError, match=r"'constant': .*'texts'.* It takes text=None"):
        baselines.get("constant", texts="x")
    with pytest.raises(InputError, match=r"'truth': .* It takes no options"):
        baselines.get("truth", model="x")


def test_a_strangers_file(edition, method_file):
    path = method_file("return [Description.of('mine', .5)] * len(units)")
    for given in (path, str(path), baselines.get(str(path))):
        answers = baselines.describe(edition, given, split="test")
        assert [str(unit) for unit, _ in answers][:2] == ["tiny/a/10", "tiny/a/11"]
        assert {said for _, said in answers} == {Description.of("mine", 0.5)}


def test_a_file_dropped_in_place_is_registered(edition, method_file, monkeypatch):
    path = method_file("return [Description.of('dropped')] * len(units)")
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(path.parent)])
    assert set(NAMES) | {"stranger"} == {spec.name for spec in baselines.specs()}
    assert baselines.describe(edition, "stranger", split="test")[0][1].text == "dropped"
    del sys.modules["baselines.stranger"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.py", "x = 1\n", "is no method: it needs SPEC"),
        ("text.txt", "x", "is no Python file"),
        (
            "half.py",
            "import baselines\nSPEC = baselines.MethodSpec('x', '1', 'method', 'X')\n",
            "is no method: it needs SPEC",
        ),
        (
            "wrong.py",
            "import baselines\nSPEC = baselines.MethodSpec('x', '1', 'method', 'X')\n"
            "def create():\n    return 1\n",
            "'x': create returned int; expected an object with 'spec'",
        ),
    ],
)
def test_files_that_are_no_method(write_file, name, content, message):
    with pytest.raises(InputError, match=message):
        baselines.get(str(write_file(name, content)))
    with pytest.raises(InputError, match="No file"):
        baselines.get("there/is/none.py")


def test_a_file_that_does_not_import_keeps_its_traceback(write_file):
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        baselines.get(str(write_file("broken.py", "import no_such_package\n")))


def entries(monkeypatch, *pairs):
    found = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in pairs]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


def test_entry_point(edition, method_file, monkeypatch):
    path = method_file("return [Description.of('theirs')] * len(units)", "their_method.py")
    monkeypatch.syspath_prepend(path.parent)
    entries(monkeypatch, ("stranger", "their_method"))
    assert "stranger" in [spec.name for spec in baselines.specs()]
    assert baselines.describe(edition, "stranger", split="test")[0][1].text == "theirs"


def test_entry_points_that_do_not_load_leave_the_list_whole(monkeypatch, method_file):
    monkeypatch.syspath_prepend(method_file("pass", "their_other.py").parent)
    entries(
        monkeypatch,
        ("broken", "no_such_package.method"),
        ("renamed", "their_other"),
        ("truth", "their_other"),
    )
    with warnings.catch_warnings(record=True) as warned:
        names = [spec.name for spec in baselines.specs()]
    assert names == NAMES
    said = "\n".join(str(warning.message) for warning in warned)
    assert "no_such_package" in said
    assert "registered as 'renamed', but its SPEC is named 'stranger'" in said
    assert "there is a method 'truth' already" in said
    with pytest.raises(ModuleNotFoundError):
        baselines.get("broken")


def test_the_guides_example(edition, write_file):
    blocks = re.findall(r"^```python.*?\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    example = next(block for block in blocks if "SPEC" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    path = write_file("brightness.py", example)
    answers = baselines.describe(edition, path, split="test")
    assert [said.text for _, said in answers] == [
        f"{level} images" for level in ("dark", "dark", "dark", "bright", "bright", "dark")
    ]


def test_the_readmes_first_lines(capsys):
    block = re.search(r"^```python\n(import baselines.*?)^```", README.read_text(), re.M | re.S)[1]
    exec(block, {})
    assert re.match(r"mini-\S+/layer1/\d+ ok \w+", capsys.readouterr().out)


def test_the_guide_names_every_method():
    page = GUIDE.read_text()
    missing = [name for name in NAMES if f"| `{name}` |" not in page]
    assert not missing, f"{GUIDE.name} has no row for {', '.join(missing)}"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented(name):
    for option in registry.options(name):
        assert len(option.help) > 10, f"{name}: {option.name}"


# descriptions that break the contract ----------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return [Description.of('x')]",
            r"'stranger' returned 1 descriptions for 6 units \(tiny/a",
        ),
        ("return [Description.of('x')] * 7", "'stranger' returned 7 descriptions for 6"),
        ("return ['x'] * len(units)", r"'stranger' returned str at index 0; .*Description\.of"),
        ("return [Description.of('x')] * 5 + [None]", "returned NoneType at index 5"),
        ("return 'x' * len(units)", "'stranger' returned str; a list"),
        ("return None", "'stranger' returned NoneType; a list"),
        ("return (Description.of('x') for _ in units)", "'stranger' returned generator; a list"),
    ],
)
def test_wrong_returns(edition, method_file, body, message):
    with pytest.raises(InputError, match=message):
        baselines.describe(edition, method_file(body), split="test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((("x", None),), "failed"), "A text with the status 'failed': 'x'"),
        (((("x", None),), "abstained"), "A text with"),
        (((), "ok"), "A description without a text"),
        (((("", None),),), "needs words; this is ''"),
        (((("...", None),),), "needs words"),
        (((None, None),), "A sense is"),
        ((((None, None),),), "needs words; this is None"),
        (("x",), "A sense is"),
        (((("x", float("nan")),),), "confidence of 'x' is nan"),
        (((("x", "high"),),), "confidence of 'x' is 'high'"),
        (((("half \ud800", 1),),), "half a character"),
        (((("x", None),), "fine"), "Status 'fine' is none of"),
    ],
)
def test_descriptions_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        Description(*arguments)


def test_descriptions():
    said = Description([("text", np.float32(0.5)), ["faces", None]])
    assert said.senses == (("text", 0.5), ("faces", None))
    assert said.rows() == [("text", 1, 0.5, "ok"), ("faces", 2, None, "ok")]
    assert Description.failed().rows() == [("", 1, None, "failed")]
    assert Description.abstained().text is None
    assert hash(said) == hash(Description((("text", 0.5), ("faces", None))))


def test_a_text_in_a_failed_answer_is_a_bug_of_the_method(edition, method_file):
    body = "return [Description((('error 500', None),), 'failed')] * len(units)"
    with pytest.raises(ValueError, match="A text with") as caught:
        baselines.describe(edition, method_file(body), split="test", batch_size=4)
    assert caught.value.__notes__ == ["while 'stranger' described tiny/a/10 to tiny/b/11"]


def test_exceptions_keep_their_traceback_and_input_errors_their_words(edition, method_file):
    with pytest.raises(ZeroDivisionError) as caught:
        baselines.describe(edition, method_file("1 / 0"), split="test")
    assert any(entry.name == "describe" for entry in caught.traceback)
    assert caught.traceback[-1].path.name == "stranger.py"
    with pytest.raises(InputError) as caught:
        baselines.describe(edition, method_file("raise InputError('give a model')"), split="test")
    assert str(caught.value) == "give a model"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("My Method", "1", "method", "X"), "lower case with dashes"),
        (("x", "", "method", "X"), "version"),
        (("x", "../1", "method", "X"), "version"),
        (("x", "1", "baseline", "X"), "kind 'baseline'"),
        (("x", "1", "method", ""), "title is empty"),
        (("x", "1", "method", "X", "", "MIT", "", ("money",)), r"requires is \('money',\)"),
        (("x", "1", "method", "X", "", "MIT", "", "training"), "requires is 'training'"),
    ],
)
def test_specs_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        MethodSpec(*fields)


# selection of units and training units ----------------------------------------------------


def test_choosing_units(edition):
    def described(**choice):
        answers = baselines.describe(edition, "constant", options={"text": "x"}, **choice)
        return [str(unit) for unit, _ in answers]

    assert len(described()) == len(TRAIN) + len(TEST)
    assert described(split="test", layers=["b"]) == ["tiny/b/10", "tiny/b/11"]
    assert described(split="test", layers="c", network="tiny") == ["tiny/c/10", "tiny/c/11"]
    assert len(described(split="train+test", layers=("a", "b"))) == len(TRAIN) + 4
    with pytest.raises(InputError, match=r"No unit of layer 'd' .*\(layers: a, b, c\)"):
        described(split="test", layers=["a", "d"])
    with pytest.raises(InputError, match=r"No unit of network 'big' .*\(networks: tiny\)"):
        described(network="big")
    with pytest.raises(InputError, match="No split 'validation'"):
        described(split="validation")


def test_no_training_split(tmp_path, edition):
    alone = tmp_path / "alone"
    write_config(alone, "other", {"test": TEST})
    with pytest.raises(InputError, match=r"'most-common' learns .*--training EDITION"):
        baselines.describe(alone, "most-common")
    answers = baselines.describe(alone, "most-common", training=edition)
    assert answers[0][1].text == "red things"
    assert baselines.describe(alone, "constant", options={"text": "x"})[0][1].text == "x"
    with pytest.raises(InputError, match="no description to learn from"):
        baselines.run(
            baselines.get("constant"),
            baselines.open_units(alone),
            Context(training=baselines.open_units(edition, layers="b").select([2])),
        )


def test_options_go_with_names(edition):
    with pytest.raises(InputError, match="already created"):
        baselines.describe(edition, baselines.get("constant"), options={"text": "x"})
    with pytest.raises(InputError, match="batch_size is 0"):
        baselines.describe(edition, "constant", batch_size=0)


def test_activations(edition, method_file, units):
    body = "return [Description.of(f'{context.activations(n, [1, 2])}') for n in units['network']]"
    path = method_file(body, more="requires=('activations',)")
    with pytest.raises(
        InputError,
        match=r"'stranger' needs the network's activations.*--subject MODEL --probe PROBE",
    ):
        baselines.describe(edition, path, split="test")
    method = baselines.get(str(path))
    with pytest.raises(InputError, match=r"network 'tiny' is not available \(available: big\)"):
        baselines.run(method, units, Context(networks={"big": len}))
    assert baselines.run(method, units, Context(networks={"tiny": len}))[0].text == "2"


# the floors, by hand ----------------------------------------------------------------------


def texts(edition, name, split="test", **more):
    return [said.text for _, said in baselines.describe(edition, name, split=split, **more)]


def test_constant(edition):
    # "red things" stands three times, "nothing at all" too: the shortest
    assert texts(edition, "constant") == ["red things"] * 6
    assert texts(edition, "constant", options={"text": "an Object."}) == ["an Object."] * 6
    with pytest.raises(InputError, match=r"the text '\.\.' has no word"):
        baselines.get("constant", text="..")


def test_most_common(edition):
    # layer b: "nothing at all" stands three times, "yellow" twice; layer c is not in training
    assert texts(edition, "most-common") == [
        *["red things"] * 2,
        *["nothing at all"] * 2,
        *["red things"] * 2,
    ]


def test_random_description(edition, units, training):
    known = {text for row in TRAIN for text in row["descriptions"]}
    method = baselines.get("random-description")
    drawn = [
        [said.text for said in baselines.run(method, units, Context(seed=seed, training=training))]
        for seed in range(200)
    ]
    assert {text for row in drawn for text in row} == known
    assert drawn[0] != drawn[1]
    together, alone = texts(edition, "random-description"), []
    for layer in "abc":
        alone += texts(edition, "random-description", layers=layer)
    assert alone == together
    # drawn with the weight that it has: "nothing at all" is 3 of 15
    share = np.mean([text == "nothing at all" for row in drawn for text in row])
    assert 0.15 < share < 0.25


def test_ties_are_those_of_the_harness():
    cases = (["b", "a"], ["bb", "a", "bb", "a"], ["B.", "b", "a"], ["aa", "b"], [" a ", "b", "b "])
    for case in cases:
        units = tuple(Unit("n", "a", i) for i in range(len(case)))
        texts = tuple((normalise(text),) for text in case)
        none = (None,) * len(case)
        known = References(units, texts, ("test",) * len(case), none, "made-up", "n")
        assert [words.most_common_text(case)] * len(case) == floor_descriptions(known, ())[
            "constant"
        ]
    assert words.most_common_text([]) is None


def test_medoid():
    assert words.medoid_text(["only"]) == "only"
    assert words.medoid_text(["a b", "c d e"]) == "a b"  # nothing shared: the shortest
    assert words.medoid_text(["c d", "a b"]) == "a b"  # then the alphabet
    assert words.medoid_text(["red circles", "circles that are red", "dogs"]) == "red circles"


def test_truth(edition, tmp_path):
    answers = [said for _, said in baselines.describe(edition, "truth", split="test")]
    assert answers[0] == Description.of("red objects of any shape")
    assert [text for text, _ in answers[2].senses] == [
        "green objects of any shape",
        "stars of any color",
        "words written in the picture",
    ]
    assert answers[3] == Description.abstained()
    assert answers[4] == Description.of("yellow objects of any shape")
    write_config(tmp_path / "real", "tiny", {"test": [schema.row(Unit("tiny", "a", 0))]})
    with pytest.raises(InputError, match="The truth of tiny/a/0 is unknown"):
        baselines.describe(tmp_path / "real", "truth")


def test_human_is_listed_and_refused(edition):
    assert "human" in NAMES
    with pytest.raises(InputError, match="'milan score' computes one leave-one-out human itself"):
        baselines.describe(edition, "human")


# nearest ----------------------------------------------------------------------------------


def test_nearest(edition):
    answers = baselines.describe(edition, baselines.get("nearest", encoder=Colours()), split="test")
    said = [answer for _, answer in answers]
    # the very same pictures; of its descriptions, the one that shares most words
    assert said[0] == Description.of("red things", 1.0)
    assert said[1].text == "blue things"
    assert said[2].text == "green grass things"
    assert said[3] == Description.abstained()  # no mask has a region
    assert said[4].text == "yellow"
    assert all(0.99 < one.senses[0][1] <= 1 for one in said if one.senses)


def test_nearest_never_takes_a_units_own_words(edition):
    method = baselines.get("nearest", encoder=Colours())
    answers = dict(baselines.describe(edition, method, split="train"))
    assert answers[Unit("tiny", "a", 0)].text != "red things"
    # a dead unit has no answer, and its "nothing at all" is lent to nobody
    assert answers[Unit("tiny", "b", 1)] == Description.abstained()
    assert "nothing at all" not in [said.text for said in answers.values()]
    assert answers[Unit("tiny", "b", 2)].text == "yellow"  # white: yellow is closest


def test_nearest_with_one_training_unit(units, training):
    method, alone = baselines.get("nearest", encoder=Colours()), training.select([0])
    assert baselines.run(method, alone, Context(training=alone)) == [Description.failed()]
    dead = Context(training=training.select([4]))
    with pytest.raises(InputError, match="masks of every training unit are empty"):
        baselines.run(method, units, dead)


def test_nearest_needs_images(units, training):
    bare = training.select([0]).map(
        lambda _: dict.fromkeys(EXEMPLAR_COLUMNS), features=training.features
    )
    method = baselines.get("nearest", encoder=Colours())
    with pytest.raises(InputError, match="found no training unit with exemplars"):
        baselines.run(method, units, Context(training=bare))
    with pytest.raises(InputError, match="looks at exemplars, and tiny/a/0 has none"):
        baselines.run(method, bare, Context(training=training))


def test_each_image_is_encoded_once(units, training):
    encoder, context = Colours(), Context(training=training)
    method = baselines.get("nearest", encoder=encoder)
    before = baselines.run(method, units, context, batch_size=1)
    shown = [row for row in (*TRAIN, *TEST) if row["descriptions"]]
    # pictures of units without a region or without a description are not looked at
    looked = {p["bytes"] for row in shown for p in row["images"] if row["unit"] not in (1, 11)}
    looked |= {p["bytes"] for row in (TRAIN[1], TEST[1], TEST[5]) for p in row["images"]}
    assert encoder.pictures == len(looked)
    assert len(looked) < K * len(shown)  # some are shown by two units
    assert baselines.run(method, units, context, batch_size=4) == before
    assert encoder.pictures == len(looked)


def test_what_is_remembered_has_a_bound(units, training, monkeypatch):
    before = baselines.run(make("nearest"), units, Context(training=training))
    monkeypatch.setattr(context, "ENCODED_BYTES", 5000)
    small = Context(training=training)
    assert baselines.run(make("nearest"), units, small) == before
    (kept,) = small._encoded.values()
    assert 0 < sum(array.nbytes for arrays in kept.values() for array in arrays) <= 5000


def test_images_and_masks_of_several_sizes(training, tmp_path):
    mixed = unit_row("a", 10, "green")
    mixed["images"][1] = picture(COLORS["green"], 90, 7)
    mixed["masks"][1] = mask(side=90)
    write_config(tmp_path / "mixed", "tiny", {"test": [mixed]})
    units = baselines.open_units(tmp_path / "mixed")
    said = baselines.run(make("nearest"), units, Context(training=training))
    assert said[0].text == "green grass things"


# the blind control ------------------------------------------------------------------------


def test_shuffled_exemplars(edition):
    units = baselines.open_units(edition)
    shuffled = baselines.shuffled_exemplars(units, seed=0)
    assert shuffled.column_names == units.column_names
    assert shuffled.features == units.features
    assert unit_keys(shuffled) == unit_keys(units)
    fixed = [name for name in units.column_names if name not in EXEMPLAR_COLUMNS]
    assert shuffled.select_columns(fixed)[:] == units.select_columns(fixed)[:]
    for layer in "abc":
        was, now = ([row for row in rows if row["layer"] == layer] for rows in (units, shuffled))
        assert sorted(r["source_ids"] for r in was) == sorted(r["source_ids"] for r in now)
        pictures = {tuple(r["source_ids"]): [p.tobytes() for p in r["images"]] for r in was}
        for row in now:  # the columns move together
            assert [p.tobytes() for p in row["images"]] == pictures[tuple(row["source_ids"])]
            mates = next(r for r in was if r["source_ids"] == row["source_ids"])
            assert [m.tobytes() for m in row["masks"]] == [m.tobytes() for m in mates["masks"]]
    again = baselines.shuffled_exemplars(units, seed=0)
    assert again["source_ids"][:] == shuffled["source_ids"][:]
    others = [baselines.shuffled_exemplars(units, seed=s)["source_ids"][:] for s in range(1, 4)]
    assert any(other != shuffled["source_ids"][:] for other in others)
    assert any(other != units["source_ids"][:] for other in others)
    assert len(baselines.shuffled_exemplars(units.select([]))) == 0
