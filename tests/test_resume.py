"""Runs that resume after an interruption."""

import pytest

import baselines
from baselines import Description
from baselines.framework.resume import DescriptionLog

METHOD = """
from pathlib import Path
from baselines import Description, MethodSpec

SPEC = MethodSpec("halting", "1.0", "method", "Stops once, where it is told to")
SEEN = Path(__file__).with_name("seen")


class Halting:
    spec = SPEC

    def __init__(self, note):
        self.note = note

    def describe(self, units, context):
        with open(SEEN, "a") as stream:
            stream.writelines(f"{unit}\\n" for unit in units["unit"])
        if Path(__file__).with_name("halt").exists() and SEEN.read_text().count("\\n") > 40:
            raise KeyboardInterrupt
        return [
            Description.abstained() if unit % 5 == 0
            else Description(((f"unit {unit}", 0.25), ("again", None)))
            for unit in units["unit"]
        ]


def create(note=""):
    return Halting(note)
"""


@pytest.fixture
def method(write_file):
    return write_file("halting.py", METHOD)


def described(method, log=None, **more):
    return baselines.describe(
        "mini", method, split="test", network="mini-sharp", layers="layer1", batch_size=16,
        log=log, **more,
    )  # fmt: skip


def seen(method):
    found = method.with_name("seen").read_text().split()
    method.with_name("seen").unlink()
    return found


@pytest.fixture
def halted(method, tmp_path):
    """Return a log of a run that was interrupted in its third batch."""
    method.with_name("halt").touch()
    log = DescriptionLog(tmp_path / "said.csv")
    with pytest.raises(KeyboardInterrupt):
        described(method, log)
    method.with_name("halt").unlink()
    seen(method)
    return log


def test_an_interrupted_run_resumes(method, halted):
    answers = described(method, halted)
    assert len(seen(method)) == len(answers) - 32
    halted.close()
    assert not halted.path.exists()
    assert answers == described(method)
    assert answers[0][1] == Description(((f"unit {answers[0][0].unit}", 0.25), ("again", None)))


def test_half_a_line_is_as_none(method, halted):
    halted.path.write_text(halted.path.read_text()[:-7])
    answers = described(method, halted)
    assert len(seen(method)) == len(answers) - 16


@pytest.mark.parametrize("more", [{"seed": 1}, {"options": {"note": "other"}}])
def test_a_run_that_is_asked_something_else_starts_over(method, halted, more):
    answers = described(method, halted, **more)
    assert len(seen(method)) == len(answers)


def test_a_method_that_changed_starts_over(method, halted):
    method.write_text(METHOD + "\n# mended\n")
    answers = described(method, halted)
    assert len(seen(method)) == len(answers)
