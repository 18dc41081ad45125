"""Analysis: counts of words, orders, controls of the same layers, areas and their p-values."""

import json
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from leaderboard.applications.analyze.config import AnalyzeConfig
from leaderboard.applications.analyze.language import open_language, tokenize
from leaderboard.applications.analyze.task import analyze
from leaderboard.applications.common.ablated_accuracy import TEST, AblatedNetwork
from leaderboard.applications.common.labelled_images import LabelledImages
from leaderboard.evaluation.predictions import from_texts
from leaderboard.record_format import application_record
from milannotations.errors import InputError
from milannotations.exemplars import RunConfig
from milannotations.schema import Unit

# ---- counting


@pytest.mark.parametrize(
    ("text", "nouns", "verbs", "adpositions", "adjectives", "length", "depth"),
    [
        ("circles", 1, 0, 0, 0, 1, 0),
        ("red circles", 1, 0, 0, 1, 2, 1),
        ("the face of a person", 2, 0, 1, 0, 5, 3),
        ("words written in the picture", 2, 1, 1, 0, 5, 4),
        ("red or blue objects", 1, 0, 0, 2, 4, 1),
        ("circles, squares", 2, 0, 0, 0, 3, 0),
        ("zebras", 0, 0, 0, 0, 1, 0),
        ("", 0, 0, 0, 0, 0, 0),
    ],
)
def test_the_mini_words_count(text, nouns, verbs, adpositions, adjectives, length, depth):
    found = {
        name: float(values[0]) for name, values in open_language("mini").scores([text]).items()
    }
    assert [found[k] for k in ("nouns", "verbs", "adpositions", "adjectives", "length")] == [
        nouns, verbs, adpositions, adjectives, length
    ]  # fmt: skip
    assert found["parse-depth"] == depth


def test_every_word_of_the_simulated_annotators_is_known():
    import milannotations

    said = [text for texts in milannotations.load("mini", split="test")["descriptions"]
            for text in texts]  # fmt: skip
    assert open_language("mini").unknown(said) == []


def test_words_that_stand_together_are_close():
    words = open_language("mini")
    said = ["letters printed in words", "red circles", "words and red circles"]
    found = words.scores(said, ["words"])
    near = found["similarity:words"]
    assert near[2] > near[1]
    assert near[0] > near[1]
    assert found["word-difference"][0] > 0
    assert words.scores(["red"])["word-difference"][0] == 0
    with pytest.raises(InputError, match="lack 'zebra'"):
        words.scores(said, ["zebra"])


def test_a_list_of_ones_own_has_no_vectors(write_file):
    path = write_file("words.csv", "word,class\nzebra,NOUN\nstripy,adj\n")
    words = open_language(str(path))
    found = words.scores(["stripy zebra"], ["zebra"])
    assert (found["nouns"][0], found["adjectives"][0]) == (1, 1)
    assert "word-difference" not in found
    assert words.source["kind"] == "words"
    assert len(words.source["sha256"]) == 64
    for content, says in (("word,class\na,BIRD\n", "class 'BIRD'"), ("a,b\n1,2\n", "word,class")):
        with pytest.raises(InputError, match=says):
            open_language(str(write_file("bad.csv", content)))


def test_what_is_not_installed_is_said(monkeypatch):
    import leaderboard.applications.analyze.language as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--language words\.csv"):
        open_language()
    with pytest.raises(InputError, match="No spaCy pipeline 'en_core_web_xx'"):
        open_language("en_core_web_xx")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Return a spaCy pipeline on disk in the true format, whose parser is a fixed rule."""
    import spacy
    from spacy.language import Language
    from spacy.tokens import Doc

    @Language.component("tests_parser")
    def parse(doc):
        kinds = {"red": "ADJ", "face": "NOUN", "dog": "NOUN", "of": "ADP", "written": "VERB"}
        tags = [kinds.get(token.lower_, "DET") for token in doc]
        heads = [0] + [i - 1 for i in range(1, len(doc))]  # each below the word before it
        return Doc(
            doc.vocab,
            words=[token.text for token in doc],
            pos=tags,
            heads=heads,
            deps=["ROOT" if i == 0 else "dep" for i in range(len(doc))],
        )

    nlp = spacy.blank("en")
    nlp.add_pipe("tests_parser")
    nlp.vocab.vectors = spacy.vectors.Vectors(shape=(3, 2))
    for word, vector in (("red", (1, 0)), ("face", (0, 1)), ("dog", (0, 3))):
        nlp.vocab.set_vector(word, np.array(vector, dtype=np.float32))
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    nlp.to_disk(folder)
    empty = tmp_path_factory.mktemp("pipeline") / "empty"
    spacy.blank("en").to_disk(empty)
    return folder, empty


def test_a_pipeline_counts_its_own_way(pipeline):
    parser = open_language(str(pipeline[0]))
    found = parser.scores(["red face of dog", "red"], ["face"])
    assert {name: values.tolist() for name, values in found.items()} == {
        "nouns": [2, 0],
        "verbs": [0, 0],
        "adpositions": [1, 0],
        "adjectives": [1, 1],
        "length": [4, 1],
        "parse-depth": [3, 0],
        "word-difference": [pytest.approx(10), 0],  # red and dog
        "similarity:face": [pytest.approx(4 / 17**0.5, abs=1e-6), 0],
    }
    assert parser.source["kind"] == "spacy"
    with pytest.raises(InputError, match="no parts of speech"):
        open_language(str(pipeline[1]))


# ---- a network whose units are known to matter or not


class Known(nn.Module):
    """Two layers of 20 units; three units of the second layer alone decide the prediction."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 20, 1), nn.Conv2d(20, 20, 1)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for each in (self.one, self.two):
                each.weight.copy_(torch.rand(each.weight.shape, generator=draw) * 0.01)
                each.bias.zero_()
            # channel c of the image goes through six units of the first layer, one of the second
            for c in range(3):
                self.one.weight[c:18:3, c] = self.two.weight[c, c:18:3] = 1

    def forward(self, x):
        return self.two(self.one(x)).mean((2, 3))[:, :3]


def images(count=60):
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    tensors = torch.rand(count, 3, 4, 4, generator=draw) * 0.2
    tensors[torch.arange(count), labels] += 0.5
    return tensors, labels.numpy()


def network(**changed):
    tensors, labels = images()
    given = {
        "name": "known",
        "layers": {"one": 20, "two": 20},
        "classes": ["r", "g", "b"],
        "labels": labels,
        "folder": None,
        **changed,
    }
    labelled = LabelledImages(tensors, given.pop("labels"), {"name": "noise"})
    return AblatedNetwork(
        model=Known().eval(), images={TEST: labelled}, run=RunConfig(batch_size=20, device="cpu"),
        deterministic=False, **given,
    )  # fmt: skip


def described(text=lambda unit: "red circles" if unit.layer == "two" and unit.unit < 3 else "text"):
    units = network().units
    return from_texts(units, [text(unit) for unit in units])


STEPS = AnalyzeConfig(step=0.025, most=0.1)


def test_units_that_matter_are_found():
    """Only three units have adjectives, and the prediction depends on them."""
    settings = AnalyzeConfig(step=0.025, most=0.1, draws=20, scores=("adjectives",))
    made = analyze(described(), [network()], open_language("mini"), settings)
    areas = made.record.results["areas"]
    assert areas["adjectives/increasing"]["area"] > areas["adjectives/decreasing"]["area"]
    assert "matter more" in made.record.number.says
    assert made.record.number.value < -0.2
    assert made.record.number.p < 0.05
    assert made.record.networks["known"]["accuracy"] == 1.0
    assert made.record.results["language"]["name"] == "mini"


def test_controls_have_as_many_units_of_each_layer_at_every_step(monkeypatch):
    asked = []
    measured = network()
    count = measured.correct_counts

    def correct_counts(role, sets, how):
        asked.append([[(unit.layer, unit.unit) for unit in units] for units in sets])
        return count(role, sets, how)

    monkeypatch.setattr(measured, "correct_counts", correct_counts)
    analyze(described(), [measured], open_language("mini"), STEPS)
    pairs = [sets for sets in asked if len(sets) == 4]  # a plan has as many sets as steps
    free, plans = pairs[:5], pairs[5:]
    counts = [[Counter(layer for layer, _ in units) for units in sets] for sets in plans]
    scores = len(plans) // 10
    assert scores >= 4
    for place in range(0, len(plans), 10):  # five draws of a score, then its controls
        assert counts[place : place + 5] == counts[place + 5 : place + 10]
    assert all(len(units) == k + 1 for sets in pairs for k, units in enumerate(sets))
    assert len({json.dumps(sets) for sets in free}) == 5
    # ties are broken anew in every draw
    assert len({json.dumps(sets) for sets in plans[:5]}) > 1


def test_accuracies_are_kept_and_measured_once(tmp_path):
    def units(**layers):
        return [Unit("known", layer, i) for layer, indices in layers.items() for i in indices]

    sets = [[], units(two=[0]), units(two=[0, 1], one=[3])]
    first = network(folder=tmp_path)
    accuracies, by_class = first.accuracies(TEST, sets), first.class_accuracies(TEST, sets)
    again = network(folder=tmp_path)
    again._ablator = None  # nothing is measured again
    turned = [units(one=[3], two=[1, 0]), []]
    assert again.accuracies(TEST, turned) == [accuracies[2], accuracies[0]]
    assert np.array_equal(again.class_accuracies(TEST, sets), by_class)
    assert accuracies[0] == 1
    assert accuracies[1] == pytest.approx(2 / 3, abs=0.1), "one class is no longer recognized"


def test_shuffled_descriptions_give_areas_around_zero():
    """Null runs: descriptions shuffled within layers carry no information, and p shows it."""
    rng, p_values, areas = np.random.default_rng(0), [], []
    measured = network()
    for seed in range(40):
        words = {layer: rng.permutation(["red"] * 8 + ["text"] * 12) for layer in ("one", "two")}
        made = analyze(
            described(lambda unit, words=words: str(words[unit.layer][unit.unit])),
            [measured],
            open_language("mini"),
            AnalyzeConfig(scores=("adjectives",), orders=("decreasing",), step=0.1, seed=seed),
        )
        entry = made.record.results["areas"]["adjectives/decreasing"]
        areas.append(entry["area"])
        p_values.append(entry["p"])
    known = np.array([p for p in p_values if p is not None])
    print(f"{len(known)} null runs, p at most .05 in {(known <= 0.05).mean():.3f}")
    assert len(known) >= 38
    assert abs(np.mean(areas)) < 2.5 * np.std(areas) / 40**0.5
    # means over draws vary less than single draws: p is cautious
    assert (known <= 0.05).mean() <= 0.1


def test_a_score_that_does_not_vary_is_a_null_result(tmp_path):
    made = analyze(described(lambda unit: "red circles"), [network()], open_language("mini"), STEPS)
    assert made.record.number.value is None
    assert made.record.results["areas"] == {}
    assert "adjectives" in made.record.results["constant"]
    made.save(tmp_path / "out")
    none = analyze(described(lambda unit: ""), [network()], open_language("mini"), STEPS)
    assert none.record.predictions.n_failed == 40
    assert none.record.results["undescribed"] == 40
    none.save(tmp_path / "none")


@pytest.mark.parametrize("scores", [None, ("adjectives",)])
def test_the_legend_leaves_the_title_readable(scores):
    config = AnalyzeConfig(step=0.05, scores=scores)
    figure = analyze(described(), [network()], open_language("mini"), config).draw()
    figure.draw_without_rendering()
    (legend,), title = figure.legends, figure.texts[0]
    assert title.get_text().startswith("Accuracy as units are ablated")
    assert not legend.get_window_extent().overlaps(title.get_window_extent())
    assert title.get_window_extent().x1 <= figure.bbox.x1


def test_several_networks_are_replicates():
    first, second = network(), network(name="other")
    both = from_texts(
        [*first.units, *second.units], [row.description for row in described().rows] * 2
    )
    made = analyze(both, [first, second], open_language("mini"), STEPS)
    assert made.record.number.over == "networks"
    assert made.record.number.n == 2
    assert set(made.record.results["networks"]) == {"known", "other"}
    # one and the same network twice: no spread, and so no p
    assert all(entry["p"] is None for entry in made.record.results["areas"].values())


def test_two_runs_give_the_same_record_and_another_seed_another(tmp_path):
    def write(name, seed=0):
        settings = AnalyzeConfig(step=0.05, seed=seed, scores=("adjectives", "length"))
        analyze(described(), [network()], open_language("mini"), settings).save(tmp_path / name)
        record = json.loads((tmp_path / name / "record.json").read_text())
        return {k: v for k, v in record.items() if k not in ("id", "created", "seconds")}

    first = write("first")
    assert write("second") == first
    other = write("third", seed=1)
    assert other["results"]["networks"] != first["results"]["networks"]
    assert set(first["files"]) == {
        "classes.csv", "curves.csv", "figure.png", "figure.svg", "layers.csv", "layers.png",
        "layers.svg", "predictions.csv",
    }  # fmt: skip
    assert application_record.load(tmp_path / "first").kind == "analyze"


@pytest.mark.parametrize("how", ["mean", "resample"])
def test_units_may_be_held_at_their_mean_or_resampled(how):
    settings = AnalyzeConfig(step=0.1, how=how, scores=("adjectives",))
    made = analyze(described(), [network()], open_language("mini"), settings)
    assert made.record.settings["how"] == how
    assert made.record.results["areas"]["adjectives/decreasing"]["area"] < 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": {"one": 20, "two": 5}}, r"known/two/5.*0-4"),
        ({"name": "another"}, "The predictions are of known, and the network is another"),
        ({"classes": ["r", "g"]}, "has 2 output classes"),
        ({"labels": np.zeros(3, dtype=int)}, "3 labels for 60 images"),
    ],
)
def test_bad_input_is_said(change, says):
    with pytest.raises(InputError, match=says):
        analyze(described(), [network(**change)], open_language("mini"), STEPS)


@pytest.mark.parametrize(
    "settings",
    [
        {"step": 0},
        {"step": 0.3},
        {"most": 1},
        {"draws": 1},
        {"orders": ("sideways",)},
        {"orders": ()},
    ],
)
def test_bad_settings_are_said(settings):
    with pytest.raises(InputError):
        AnalyzeConfig(**settings)


def test_an_unknown_score_is_said():
    with pytest.raises(InputError, match="Did you mean 'adjectives'"):
        analyze(
            described(), [network()], open_language("mini"), AnalyzeConfig(scores=("adjective",))
        )


def test_steps_below_one_unit_are_said():
    config = AnalyzeConfig(step=0.005, most=0.1)
    with pytest.raises(InputError, match="take a larger"):
        analyze(described(), [network()], open_language("mini"), config)


# ---- networks and images by name


@pytest.fixture
def classes(tmp_path):
    """Return a folder of images in three class folders, and a file that defines the network."""
    from PIL import Image

    tensors, labels = images(12)
    for i, (image, label) in enumerate(zip(tensors, labels, strict=True)):
        folder = tmp_path / "test" / "rgb"[label]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((8, 8), 0).save(folder / f"{i}.png")
    (tmp_path / "net.py").write_text(
        f"import sys\nsys.path.insert(0, {str(__file__.rsplit('/', 1)[0])!r})\n"
        "from test_analysis import Known\nfrom networks import plain\n"
        "def build():\n    return Known().eval(), plain\n"
    )
    return tmp_path


def run(*words):
    from leaderboard.cli.main import main

    with pytest.raises(SystemExit) as left:
        main(list(words))
    return left.value.code


def test_the_command(classes, capsys, monkeypatch):
    described().write(classes / "said.csv")
    (classes / "order.txt").write_text("b\ng\nr\n")
    common = (
        str(classes / "said.csv"), "--model", f"{classes}/net.py:build", "--images",
        str(classes / "test"), "--layer", "one", "two", "--language", "mini", "--step", ".1",
    )  # fmt: skip
    names = classes / "names.txt"
    names.write_text("r\ng\nb\n")
    assert run("analyze", *common, "--classes", str(names), "--out", str(classes / "out")) == 0
    assert "area between curve and control" in capsys.readouterr().out
    found = application_record.load(classes / "out")
    assert found.networks["known"]["accuracy"] == 1.0
    assert found.asked["files"] == ["said.csv"]
    assert run("analyze", *common, "--classes", str(classes / "order.txt"), "--json",
               "--out", str(classes / "wrong")) == 0  # fmt: skip
    shown = json.loads(capsys.readouterr().out)
    assert shown["networks"]["known"]["accuracy"] < 0.5
    names.write_text("r\ng\n")
    assert run("analyze", *common, "--classes", str(names), "--out", str(classes / "x")) == 1
    assert "3 output classes" in capsys.readouterr().err
    names.write_text("r\ng\nq\n")
    assert run("analyze", *common, "--classes", str(names), "--out", str(classes / "x")) == 1
    assert "lacks the classes b" in capsys.readouterr().err


def test_one_layer_of_a_file_of_two_on_fewer_images_than_classes(classes, capsys):
    """Layers are chosen from the file; classes are listed before images are left out."""
    for name, left in (("r", 2), ("g", 1), ("b", 4)):  # the two images are of r and b, not of g
        folder = classes / "test" / name
        for path in sorted(folder.iterdir())[left:]:
            path.unlink()
        folder.rename(folder.with_name(f"{'rgb'.index(name)}-{name}"))
    described().write(classes / "said.csv")
    common = (
        "analyze", str(classes / "said.csv"), "--model", f"{classes}/net.py:build", "--images",
        str(classes / "test"), "--language", "mini", "--step", ".1", "--limit", "2",
    )  # fmt: skip
    assert run(*common, "--layer", "two", "--out", str(classes / "out")) == 0
    record = application_record.load(classes / "out")
    assert record.networks["known"]["accuracy"] == 1.0
    capsys.readouterr()
    assert run(*common, "--layer", "three", "--out", str(classes / "x")) == 1
    assert "layers one, two, and none is of 'three'" in capsys.readouterr().err


def test_a_test_set_with_classes_that_the_network_lacks(classes, capsys):
    described().write(classes / "said.csv")
    common = (
        "analyze", str(classes / "said.csv"), "--model", f"{classes}/net.py:build", "--images",
        str(classes / "test"), "--layer", "one", "--language", "mini", "--out", str(classes / "o"),
    )  # fmt: skip
    (classes / "test" / "zebra").mkdir()
    (classes / "test" / "r" / "0.png").rename(classes / "test" / "zebra" / "0.png")
    assert run(*common) == 1
    assert "the network has 3" in capsys.readouterr().err
    assert not (classes / "o").exists()


def test_audits_by_command(tmp_path, capsys):
    units = [Unit(name, "conv1", i) for name in "ab" for i in range(10)]
    texts = ["a face" if unit.network == "a" else "grass" for unit in units]
    from_texts(units, texts).write(tmp_path / "said.csv")
    (tmp_path / "measured.csv").write_text(
        "network,layer,unit,selectivity\n" + "".join(f"a,conv1,{i},{i / 10}\n" for i in range(10))
    )
    common = ("audit", str(tmp_path / "said.csv"), "--pair", "a:b")
    assert run(*common, "--out", str(tmp_path / "out"), "--selectivity",
               str(tmp_path / "measured.csv")) == 0  # fmt: skip
    assert "about these two networks only" in " ".join(capsys.readouterr().out.split())
    found = application_record.load(tmp_path / "out").results["groups"]["faces"]
    assert found["measured"]["networks"]["a"]["precision"] == 0.5
    assert run(*common, "--preset", "milan2022", "--out", str(tmp_path / "x")) == 1
    assert run("audit", common[1], "--preset", "milan2022", "--out", str(tmp_path / "x")) == 1
    assert "no predictions for" in capsys.readouterr().err
    assert run("audit", common[1], "--pair", "ab", "--out", str(tmp_path / "x")) == 1
    assert (
        run("audit", common[1], "--words", "grass,tree", "--json", "--out", str(tmp_path / "g"))
        == 0
    )
    assert json.loads(capsys.readouterr().out)["number"]["value"] == 10


def test_tokens_are_words_and_marks():
    assert tokenize("a dog's nose, 2 eyes!") == ["a", "dog's", "nose", ",", "2", "eyes", "!"]


def test_listing_tasks_imports_no_torch():
    import subprocess

    program = (
        "import sys; sys.argv = ['milan', 'list', 'tasks']\n"
        "from leaderboard.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'spacy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "analyze" in done.stdout
