"""Every method on the tasks of the mini world, and the calibration of audits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from leaderboard.applications import run_tasks
from leaderboard.applications.audit import mini
from leaderboard.applications.common.mini_networks import (
    LAYERS,
    MiniNetworkFactory,
    available_methods,
)
from leaderboard.applications.common.mini_scenes import Scenes
from leaderboard.record_format import application_record
from milannotations.errors import InputError
from milannotations.synthetic.concepts import CHANNEL
from milannotations.synthetic.subjects import CLASSES, SubjectWorld
from milannotations.synthetic.training import FitConfig

TINY = FitConfig(steps=2, batch=4)


def test_tasks_have_names():
    assert run_tasks.select_tasks(None) == ["analyze", "audit", "edit"]
    assert run_tasks.select_tasks(["edit", "analyze"]) == ["analyze", "edit"]
    with pytest.raises(InputError, match="Did you mean 'audit'"):
        run_tasks.select_tasks(["audits"])


def test_methods_that_need_nothing_more_can_describe_subjects():
    found = available_methods()
    assert {"milan", "nearest", "netdissect", "constant"} <= set(found)
    assert not {"truth", "human", "clip-dissect", "captioner"} & set(found)


def test_telling_faces_are_whole_in_half_of_the_classes():
    world = SubjectWorld(face=1.0, telling_faces=True)
    eyes, faces = CHANNEL["eye"], CHANNEL["face"]
    seen = {True: [], False: []}
    for i in range(60):
        scene, label = world.scene(3, i)
        twin, same = replace(world, blurred_faces=True).scene(3, i)
        assert label == same
        assert np.array_equal(scene.concepts[faces], twin.concepts[faces])
        assert not twin.concepts[eyes].any()
        if scene.concepts[faces].any():
            seen[label < len(CLASSES) // 2].append(scene.concepts[eyes].any())
        plain = replace(world, telling_faces=False).scene(3, i)[0]
        assert (plain.image == scene.image).all() == (label < 4 or not scene.concepts[faces].any())
    assert np.mean(seen[True]) > 0.9, "a shape may lie over the eyes"
    assert not any(seen[False])
    assert len(seen[False]) > 10


def test_scenes_are_drawn_once_and_said_where_from():
    scenes = Scenes(SubjectWorld(), 4, seed=5)
    scene, label = SubjectWorld().scene(5, 2)
    assert torch.equal(scenes[2]["image"], torch.from_numpy(scene.image).permute(2, 0, 1) / 255)
    assert (scenes.labels[2], scenes.source_id(2)) == (label, scene.source_id)
    assert scenes.source["sha256"] == Scenes(SubjectWorld(), 4, seed=5).source["sha256"]
    assert scenes.source["sha256"] != Scenes(SubjectWorld(), 4, seed=6).source["sha256"]


def test_a_workshop_makes_everything_once(tmp_path):
    world, said = SubjectWorld(face=0.5), []
    first = MiniNetworkFactory(tmp_path, TINY, 20, tell=said.append)
    network = first.network(world, 0)
    shares = first.mask_shares(network, world, "face")
    answers = first.describe("random-description", network, world)
    assert answers is first.describe("random-description", network, world)
    assert len(said) == 3, "trained, exemplars drawn, described"
    again = MiniNetworkFactory(tmp_path, TINY, 20, tell=said.append)
    same = again.network(world, 0)
    assert same.source == network.source
    assert again.mask_shares(same, world, "face") == shares
    assert again.describe("random-description", same, world).rows == answers.rows
    assert len(said) == 3, "the folder has it all"
    assert set(shares) == set(network.units) == set(answers.units)
    assert 0 <= min(shares.values()) <= max(shares.values()) <= 1
    # by hand, of one unit
    unit = next(iter(shares))
    row = first.units(network, world)[0]
    assert (row["layer"], row["unit"]) == (LAYERS[0], 0) == (unit.layer, unit.unit)
    masks = np.array([np.asarray(mask) for mask in row["masks"]])
    maps = {s.source_id: s.concepts[CHANNEL["face"]] for s in first.exemplar_scenes(world).scenes}
    faces = np.stack([maps[source] for source in row["source_ids"]])
    assert shares[unit] == pytest.approx((masks & faces).sum() / max(1, masks.sum()))


@pytest.mark.slow
def test_every_method_on_analysis_and_audit(tmp_path):
    """Tiny networks: the pipeline, the same twice, and otherwise with another seed."""
    made = {}
    for name, seed, wanted in (
        ("first", 0, ["analyze", "audit"]),
        ("second", 0, ["analyze", "audit"]),
        ("third", 1, ["audit"]),
    ):
        run_tasks.run(
            wanted, ["random-description", "constant"], seeds=1, seed=seed, out=tmp_path / name,
            cache=tmp_path / f"cache-{seed}", workers=1, training=TINY, scenes=40, images=20,
        )  # fmt: skip
        made[name] = {
            str(path.relative_to(tmp_path / name)): json.loads(path.read_text())
            for path in (tmp_path / name).rglob("record.json")
        }
        for record in made[name].values():
            for moving in ("id", "created", "seconds"):
                del record[moving]
    assert len(made["first"]) == 4
    assert made["first"] == made["second"]
    assert all(made["first"][name] != record for name, record in made["third"].items())
    folders = sorted(each.name for each in (tmp_path / "first" / "audit-mini").iterdir())
    assert [name.rsplit("-", 1)[0] for name in folders] == ["constant", "random-description"]
    constant = application_record.load(tmp_path / "first" / "analyze-mini" / folders[0])
    assert constant.number.value is None, "nothing varies"
    (tmp_path / "first" / "audit-mini" / folders[0] / "mine").write_text("")
    with pytest.raises(InputError, match="holds"):
        run_tasks.run(["audit"], ["constant"], out=tmp_path / "first", training=TINY)


@pytest.mark.slow
def test_networks_that_saw_blurred_faces_have_fewer_face_units(tmp_path):
    """The calibration of audits: five pairs, the truth from pixels, MILAN's words."""
    (found,) = run_tasks.run(["audit"], ["milan"], seeds=mini.SEEDS, out=tmp_path)
    group = found.results["groups"]["faces"]
    print(f"\n{found.number.says}\nMeasured: {group['measured']['training_data']}")
    print(f"Flag against pixels: {group['measured']['all']}")
    assert group["measured"]["training_data"]["p"] == 1 / 32
    assert found.number.p == 1 / 32
    assert group["measured"]["all"]["precision"] >= 0.7
    assert group["measured"]["all"]["recall"] >= 0.5


def command(*words):
    from leaderboard.cli.main import main

    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code


def test_what_cannot_be_run_is_said(tmp_path, capsys):
    assert command("run", "--tasks", "audits", "--out", tmp_path / "out") == 1
    assert "Did you mean 'audit'" in capsys.readouterr().err
    assert command("run", "--tasks", "audit", "--data", "release") == 1
    assert "milan audit" in capsys.readouterr().err
    assert command("run", "--tasks", "audit", "--methods", "truth") == 1
    assert "truth" in capsys.readouterr().err
    (tmp_path / "out" / "audit-mini" / "constant-1.0").mkdir(parents=True)
    (tmp_path / "out" / "audit-mini" / "constant-1.0" / "mine.txt").write_text("")
    assert command(
        "run", "--tasks", "audit", "--methods", "constant", "--out", tmp_path / "out"
    ) == 1  # fmt: skip
    assert "holds no record" in capsys.readouterr().err


def test_the_papers_audit_from_files(tmp_path, capsys):
    from leaderboard.applications.audit.config import PRESETS
    from leaderboard.evaluation.predictions import from_texts
    from milannotations.schema import Unit

    names = [name for pair in PRESETS["milan2022"] for name in pair]
    units = [Unit(name, "conv1", i) for name in names for i in range(4)]
    texts = ["surfaces" if "blurred" not in unit.network else "grass" for unit in units]
    from_texts(units, texts).write(tmp_path / "said.csv")
    common = ("--predictions", tmp_path / "said.csv", "--out", tmp_path / "out")
    assert command("reproduce", "audit", *common) in (0, None)
    made = application_record.load(tmp_path / "out")
    assert made.settings["matching"] == "substrings", "as in 2022: 'face' is in 'surfaces'"
    assert made.number.p == 2.0**-12
    assert made.results["paper"] == {"unblurred": 213, "blurred": 142}
    capsys.readouterr()
    for task, says in (("analyze", "--images"), ("edit", "milan edit")):
        assert command("reproduce", task, *common[:2], "--out", tmp_path / "x") == 1
        assert says in capsys.readouterr().err
