"""Analysis and audit of real networks on real images, which are not part of the project.

No MILAN of photographs is available, so other methods describe: INVERT by the classes of the
CIFAR-10 images, Network Dissection by what COCO's annotators outlined.
"""

import json

import pytest
from test_models import RESNET20

import baselines
from baselines import Context
from baselines.shared.probe_statistics import ProbeStatistics
from leaderboard.applications.audit.config import AuditConfig
from leaderboard.applications.audit.task import audit
from leaderboard.applications.common.task_result import TaskInfo
from leaderboard.evaluation import predictions
from leaderboard.record_format import application_record
from milannotations.exemplars import RunConfig, load_model
from milannotations.probes import ProbeItems, open_probe
from milannotations.schema import Unit, features, row

pytestmark = pytest.mark.slow

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SQUEEZE = "torchvision:squeezenet1_1"


def said_of(method, network, widths, model, weights, probe, side):
    """Return a method's descriptions of all units of some layers, and the network on its probe."""
    from datasets import Dataset

    loaded = load_model(model, weights=weights)
    items = ProbeItems(open_probe(probe), loaded.preprocessing, (28, 28), side)
    probing = ProbeStatistics(
        network, loaded.model, items, items.probe, list(widths), run=RunConfig()
    )
    units = [Unit(network, layer, i) for layer, width in widths.items() for i in range(width)]
    table = Dataset.from_list(
        [row(unit, unit_kind="channel") for unit in units], features=features()
    )
    context = Context(probe_statistics={network: probing})
    answers = baselines.run(baselines.get(method), table, context)
    return predictions.from_descriptions(zip(units, answers, strict=True)), probing


def run(*words):
    from leaderboard.cli.main import main

    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code in (0, None)


def test_resnet20_on_cifar10(real, tmp_path):
    (tmp_path / "resnet20.py").write_text(RESNET20)
    model, weights = f"{tmp_path}/resnet20.py:resnet20", real / "weights" / "resnet20_cifar10.th"
    images = real / "images" / "cifar10-test"
    said, _ = said_of(
        "invert",
        "resnet20-cifar10",
        {"layer2": 32, "layer3": 64},
        model,
        weights,
        f"images:{images}",
        side=32,
    )
    said.write(tmp_path / "said.csv")
    (tmp_path / "words.csv").write_text(
        "word,class\nnot,ADV\nor,CCONJ\nand,CCONJ\n" + "".join(f"{c},NOUN\n" for c in CLASSES)
    )
    common = (
        "analyze", tmp_path / "said.csv", "--model", model, "--weights", weights, "--images",
        images, "--layer", "layer2", "layer3", "--limit", 300, "--batch-size", 100, "--step", 0.05,
        "--language", tmp_path / "words.csv", "--method", "invert",
    )  # fmt: skip
    run(*common, "--out", tmp_path / "first")
    made = application_record.load(tmp_path / "first")
    entry = made.networks["resnet20-cifar10"]
    print(f"\naccuracy {entry['accuracy']:.3f} on {made.images['count']['images']} images")
    print(json.dumps(made.results["areas"], indent=1), made.number.says)
    assert entry["accuracy"] > 0.75
    assert entry["units"] == {"layer2": 32, "layer3": 64}
    assert made.results["language"]["kind"] == "words"
    assert made.results["areas"], "INVERT's formulas differ in length"
    for each in made.results["networks"]["resnet20-cifar10"].values():
        assert each["accuracy"] < entry["accuracy"], "a fifth of all units is missed"
        assert len(each["controls"]) == 5


def test_squeezenet_on_imagenet_and_coco(real, tmp_path):
    weights = real / "weights" / "squeezenet1_1_imagenet.safetensors"
    said, probing = said_of(
        "netdissect",
        "squeezenet1-1-imagenet",
        {"features.12": 512},
        SQUEEZE,
        weights,
        f"coco:{real / 'images' / 'coco-mini'}",
        side=224,
    )
    said.write(tmp_path / "said.csv")
    images = real / "images" / "imagenet-sample"
    (tmp_path / "names.txt").write_text(
        "".join(f"{each.name}\n" for each in sorted(images.iterdir()) if each.is_dir())
    )
    run(
        "analyze", tmp_path / "said.csv", "--model", SQUEEZE, "--weights", weights, "--images",
        images, "--classes", tmp_path / "names.txt", "--layer", "features.12", "--limit", 200,
        "--step", 0.05, "--language", "mini", "--score", "length", "--method", "netdissect",
        "--out", tmp_path / "analysis",
    )  # fmt: skip
    made = application_record.load(tmp_path / "analysis")
    print(f"\naccuracy {made.networks['squeezenet1-1-imagenet']['accuracy']:.3f}")
    print(made.number.says)
    assert made.networks["squeezenet1-1-imagenet"]["accuracy"] > 0.5
    assert {key.rsplit("/")[0] for key in made.results["areas"]} == {"length"}

    selectivity = inside(probing, "person")
    settings = AuditConfig(words={"person": ("person",)}, at=0.5)
    checked = audit(
        said, config=settings, selectivity=selectivity, info=TaskInfo("netdissect", "coco-mini"),
    )  # fmt: skip
    checked.save(tmp_path / "audit")
    found = checked.record.results["groups"]["person"]["measured"]["all"]
    print(f"{checked.record.number.says} Measured: {found}")
    assert found["units"] == 512
    assert found["flagged"] == checked.record.number.value > 0
    # units that dissection calls persons lie in persons more than others do
    flagged = set(checked.flagged.unit)
    means = [
        sum(v for unit, v in selectivity.items() if (unit.unit in flagged) == wanted)
        / sum((unit.unit in flagged) == wanted for unit in selectivity)
        for wanted in (True, False)
    ]
    print(f"share of active area in persons: flagged {means[0]:.3f}, others {means[1]:.3f}")
    assert means[0] > means[1]
    none = audit(said, config=AuditConfig(words={"faces": ("face", "nose")}))
    assert none.record.number.value == 0


def inside(probing, concept):
    """Return which share of where each unit is active lies in a concept that people outlined."""
    from milannotations.exemplars import Overlap

    names = [each.name for each in probing.concepts]
    found = probing.run_thresholded_tally(
        "overlap-all", lambda thresholds: Overlap(thresholds, concepts=len(names))
    )
    place = names.index(concept)
    return {
        Unit(probing.network, layer, i): float(share)
        for layer, each in found.items()
        for i, share in enumerate(each.inside[:, place])
    }
