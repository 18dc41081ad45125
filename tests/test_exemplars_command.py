"""The command `milan exemplars`: alone, in several processes, interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from networks import folder

import milannotations

NETWORKS = Path(__file__).parent / "networks.py"
EXACT = f"{NETWORKS}:exact_plain"


@pytest.fixture
def images(tmp_path):
    return folder(tmp_path / "pictures", 60)


def content(edition):
    """Return the bytes of all files of an edition, by name."""
    return {
        str(path.relative_to(edition)): path.read_bytes()
        for path in sorted(edition.rglob("*"))
        if path.is_file()
    }


def processes(count, *words, wait=True):
    """Run the command in several processes."""
    started = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         f"--nproc-per-node={count}", "-m", "milannotations.exemplars", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    if not wait:
        return started
    out, err = started.communicate(timeout=300)
    return started.returncode, out, err


def test_from_images_to_an_edition_that_opens(milan, images, tmp_path):
    out = tmp_path / "edition"
    status, said, err = milan(
        "exemplars", EXACT, "--layer", "conv1", "conv2", "--images", images, "--out", out
    )
    assert status == 0, err
    assert "conv2" in said
    assert "60 images seen" in said
    name = "networks-exact-plain-pictures"
    assert f'datasets.load_dataset("{out}", "{name}")' in said
    rows = milannotations.load(out, name, split="test")
    assert len(rows) == 6 + 8
    row = rows[3]
    assert (row["network"], row["layer"], row["unit"]) == (name, "conv1", 3)
    assert len(row["images"]) == len(row["masks"]) == len(row["source_ids"]) == 15
    assert row["activations"] == sorted(row["activations"], reverse=True)
    picture = np.array(row["images"][0])
    from PIL import Image

    source = np.array(Image.open(images / row["source_ids"][0]))
    assert np.array_equal(picture, source), "pictures are those the network saw"
    assert milan("data", "check", out)[0] == 0
    assert milan("data", "show", out, "--out", tmp_path / "sheet.png")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", name]


def test_it_refuses_to_write_over_what_is_there(milan, images, tmp_path):
    words = ("exemplars", EXACT, "--layer", "conv1", "--images", images, "--out", tmp_path / "e")
    assert milan(*words)[0] == 0
    before = content(tmp_path / "e")
    status, _, err = milan(*words)
    assert status == 1
    assert "--overwrite" in err
    assert milan(*words, "--overwrite")[0] == 0
    assert content(tmp_path / "e") == before


def test_layers_are_listed_with_what_they_give(milan):
    status, said, _ = milan("exemplars", EXACT, "--list-layers", "--preprocess", "imagenet:32")
    assert status == 0
    assert "conv1  Conv2d  maps: 6 units, 16 x 16" in " ".join(said.split()).replace(
        "conv1 Conv2d", "conv1  Conv2d "
    )
    listed = json.loads(milan("exemplars", EXACT, "--list-layers", "--json")[1])
    assert [each["name"] for each in listed] == ["conv1", "act", "conv2", "head"]


def test_a_dry_run_computes_nothing_and_says_what_it_would(milan, images, tmp_path):
    words = ("exemplars", EXACT, "--layer", "conv1", "conv2", "--images", images, "--dry-run")
    status, said, _ = milan(*words, "--out", tmp_path / "e")
    assert status == 0
    assert "60 images of 16 x 16" in said
    assert not (tmp_path / "e").exists()
    plan = json.loads(milan(*words, "--json", "--limit", "20")[1])
    assert plan["images"] == 20
    assert [layer["units"] for layer in plan["layers"]] == [6, 8]
    assert plan["memory"] > 0
    assert plan["disk"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--layer", "conv7"), "No layer 'conv7'"),
        (("--layer", "conv1", "--units", "4-9"), "6 units; unit 9"),
        (("--layer", "conv1", "--units", "x"), "expected 0-99"),
        (("--layer", "conv1", "--name", "base"), "union"),
        (("--layer", "conv1", "--quantile", "1.5"), "1.5"),
        (("--layer", "conv1", "--dtype", "int8"), "No dtype"),
        (("--layer", "conv1", "--read", "both"), "No read mode 'both'"),
        (("--layer", "conv1", "--device", "cuda:9"), "cuda:9"),
        ((), "No layer was given"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    milan, images, tmp_path, words, says
):
    status, _, err = milan("exemplars", EXACT, *words, "--images", images, "--out", tmp_path / "e")
    assert status == 1
    assert says in err
    assert not (tmp_path / "e" / "README.md").exists()


def test_what_cannot_be_written_is_said_before_the_pass(milan, images, tmp_path):
    (tmp_path / "mine" / "papers").mkdir(parents=True)
    words = ("exemplars", EXACT, "--layer", "conv1", "--images", images, "--out", tmp_path / "e")
    for more, says in [
        (("--also-npy", tmp_path / "mine"), "papers"),
        (("--masks", "2021"), "No masks '2021'"),
    ]:
        status, _, err = milan(*words, *more)
        assert status == 1
        assert says in err
        assert not (tmp_path / "e").exists(), "no pass was begun"


def test_units_limit_and_the_2022_format(milan, images, tmp_path):
    status, _, err = milan(
        "exemplars", EXACT, "--layer", "conv2", "--images", images, "--out", tmp_path / "e",
        "--units", "1,4-5", "--limit", "30", "--also-npy", tmp_path / "npy", "--name", "mine",
        "--masks", "2022", "--k", "5",
    )  # fmt: skip
    assert status == 0, err
    rows = milannotations.load(tmp_path / "e", "mine", split="test")
    assert rows["unit"][:] == [1, 4, 5]
    layer = tmp_path / "npy" / "conv2"
    assert np.load(layer / "units.npy").tolist() == [1, 4, 5]
    assert np.load(layer / "images.npy").shape == (3, 5, 3, 16, 16)
    ids = np.loadtxt(layer / "ids.csv", delimiter=",", dtype=int)
    assert ids.max() < 30
    assert np.array_equal(
        np.load(layer / "masks.npy")[1, 2, 0], np.array(rows[1]["masks"][2]).astype(np.uint8)
    )


def test_an_autoencoder_laid_over_a_layer(milan, images, tmp_path):
    (tmp_path / "sae.py").write_text(
        "from torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(8, 40), nn.ReLU())\n"
    )
    status, said, err = milan(
        "exemplars", EXACT, "--layer", "conv2", "--sae", f"{tmp_path / 'sae.py'}:build",
        "--images", images, "--out", tmp_path / "e", "--name", "mine",
    )  # fmt: skip
    assert status == 0, err
    assert "sae_latent" in said
    rows = milannotations.load(tmp_path / "e", "mine", split="test")
    assert set(rows["layer"]) == {"conv2.sae"}
    assert len(rows) == 40


def test_a_corrupt_picture_is_named_skipped_and_counted(milan, images, tmp_path):
    (images / "0007.png").write_bytes((images / "0007.png").read_bytes()[:100])
    words = ("exemplars", EXACT, "--layer", "conv1", "--images", images, "--out", tmp_path / "e")
    status, _, err = milan(*words)
    assert status == 1
    assert "0007.png" in err
    assert "--skip-bad" in err
    assert milan(*words, "--skip-bad")[0] == 0
    card = (tmp_path / "e" / "README.md").read_text()
    assert "0007.png" in card
    assert milan("data", "check", tmp_path / "e")[0] == 0


def test_several_processes_write_the_same_bytes_as_one(milan, images, tmp_path):
    words = (EXACT, "--layer", "conv1", "conv2", "--images", images, "--batch-size", 4)
    assert milan("exemplars", *words, "--out", tmp_path / "1" / "e")[0] == 0
    alone = content(tmp_path / "1" / "e")
    for count in (2, 5):
        out = tmp_path / str(count) / "e"
        status, _, err = processes(count, *words, "--out", out)
        assert status == 0, err
        assert content(out) == alone


def test_killed_anywhere_and_run_again_gives_the_same_bytes(milan, tmp_path):
    pictures = folder(tmp_path / "pictures", 160)
    words = (EXACT, "--layer", "conv1", "conv2", "--images", pictures, "--batch-size", 1,
             "--checkpoint-every", 0)  # fmt: skip
    assert milan("exemplars", *words, "--out", tmp_path / "whole" / "e")[0] == 0
    out = tmp_path / "killed" / "e"
    kept = out / ".networks-exact-plain-pictures.pass"
    for _ in range(2):  # kill it twice during the pass
        started = subprocess.Popen(
            [sys.executable, "-m", "milannotations.exemplars", *map(str, words), "--out", str(out)]
        )
        deadline = time.monotonic() + 120
        seen = {path.stat().st_mtime_ns for path in kept.glob("rank-0-of-1.pt")}
        while len(seen) < 10 and started.poll() is None and time.monotonic() < deadline:
            seen |= {path.stat().st_mtime_ns for path in kept.glob("rank-0-of-1.pt")}
        started.send_signal(signal.SIGKILL)
        started.wait()
        assert list(kept.glob("rank-*.pt")), "it was stopped within the pass"
        assert not (out / "README.md").exists()
    assert milan("exemplars", *words, "--out", out)[0] == 0
    assert content(out) == content(tmp_path / "whole" / "e")


@pytest.mark.slow  # three processes for half a minute
def test_one_of_three_processes_dies_and_all_stop_with_one_message(milan, tmp_path):
    pictures = folder(tmp_path / "pictures", 60)
    words = ("--layer", "conv1", "--images", pictures, "--batch-size", 2)
    dying = tmp_path / "networks.py"
    dying.write_text(
        NETWORKS.read_text() + "\n\ndef dying():\n"
        "    import os, pathlib, signal, time\n"
        "    flag = pathlib.Path(__file__).with_suffix('.died')\n"
        "    model = exact()\n"
        "    def stop(*_):\n"
        "        time.sleep(.2)\n"
        "        if os.environ.get('RANK') == '1' and model.batches == 4 and not flag.exists():\n"
        "            flag.touch()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    model.conv1.register_forward_pre_hook(stop)\n"
        "    return model, plain\n"
    )
    out = tmp_path / "three" / "e"
    status, _, err = processes(3, f"{dying}:dying", *words, "--out", out, "--name", "mine",
                               "--checkpoint-every", 0)  # fmt: skip
    assert status != 0
    assert err.count("Run the same command again") == 1
    assert "error: Another process of the pass stopped or died" in err
    status, _, err = processes(3, f"{dying}:dying", *words, "--out", out, "--name", "mine",
                               "--checkpoint-every", 0)  # fmt: skip
    assert status == 0, err
    assert milan("exemplars", f"{dying}:dying", *words, "--out", tmp_path / "one" / "e",
                 "--name", "mine")[0] == 0  # fmt: skip
    assert content(out) == content(tmp_path / "one" / "e")
