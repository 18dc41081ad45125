"""Options declared once: by the function or dataclass that takes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from annotated_types import Ge, Interval
from typer.testing import CliRunner

from leaderboard.cli.main import VERBS, load_verb
from milannotations.utils.options import OptionsOf, with_options


@dataclass(frozen=True)
class Pass:
    """How a pass is run.

    Attributes:
        batch_size: images per forward pass, which
            share the memory.
        device: `cpu` or `cuda` (default: the best available).
        keep: keep the images.
    """

    batch_size: Annotated[int, Ge(1)] = 32
    device: str | None = None
    keep: bool = False
    tell: Any = None


def measure(
    name: str,
    *,
    layers: str | Sequence[str] = (),
    share: Annotated[float, Interval(ge=0, le=1)] = 0.5,
) -> None:
    """Measure something.

    Args:
        name: whose.
        layers: layers to measure (default: all).
        share: share of the units (default: .5).
    """


def invoke(*words: str) -> tuple[Any, dict[str, Any]]:
    seen: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @with_options
    def command(
        path: Annotated[str, typer.Argument(help="A file.")],
        config: Annotated[Pass, OptionsOf(Pass, without=("tell",))],
        scope: Annotated[dict[str, Any], OptionsOf(measure, names={"layers": "--layer"})],
        given: Annotated[dict[str, Any], OptionsOf(Pass, only=("batch_size",), optional=True)],
        out: str = "here",
    ) -> None:
        """Do it."""
        seen.update(path=path, config=config, scope=scope, out=out, given=given)

    return CliRunner().invoke(app, list(words)), seen


def test_values_reach_what_declares_them():
    result, seen = invoke("f", "--batch-size", "4", "--keep", "--layer", "a", "--layer", "b")
    assert result.exit_code == 0, result.output
    assert seen["config"] == Pass(batch_size=4, keep=True)
    assert seen["scope"] == {"layers": ("a", "b"), "share": 0.5}
    assert (seen["path"], seen["out"], seen["given"]) == ("f", "here", {"batch_size": 4})


def test_defaults_are_those_of_the_source():
    _, seen = invoke("f")
    assert seen["config"] == Pass()
    assert seen["scope"] == {"share": 0.5}


def test_help_is_the_documentation():
    result, _ = invoke("--help")
    text = re.sub(r"[\s│]+", " ", result.output)
    assert "Images per forward pass, which share the memory." in text
    assert "Cpu or cuda (default: the best available)" in text
    assert "Layers to measure (default: all)" in text
    assert "[default: 32]" in text
    assert "Share of the units [default: 0.5]" in text, "the default stands there once"
    assert "--no-keep" not in text
    assert "--tell" not in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--batch-size", "0"), "greater than or equal to 1"),
        (("--share", "1.5"), "less than or equal to 1"),
        (("--batch-size", "b"), "as an integer"),
    ],
)
def test_bounds_are_those_of_the_annotation(words, reason):
    result, _ = invoke("f", *words)
    assert result.exit_code == 2
    assert reason in re.sub(r"[\s│]+", " ", result.output)


def test_an_undocumented_or_unknown_parameter_is_a_mistake_of_the_program():
    with pytest.raises(TypeError, match="tell"):
        OptionsOf(Pass).parameters()
    with pytest.raises(TypeError, match="no parameter"):
        OptionsOf(Pass, only=("size",)).parameters()


@pytest.mark.parametrize("verb", VERBS)
def test_summaries_are_the_first_lines_of_the_verbs_own_help(verb):
    command = load_verb(verb)
    assert command.help.splitlines()[0].strip() == VERBS[verb][1]
    assert "Examples:" in (command.epilog or "")


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_answers_without_torch(verb):
    code = (
        "import sys\nfrom leaderboard.cli.main import app\n"
        "try: app(args=sys.argv[1:], prog_name='milan')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *([verb] if verb else []), "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Usage: milan" in done.stdout


def test_completion_names_verbs_and_options():
    def complete(words: str) -> str:
        environment = {
            "_MILAN_COMPLETE": "complete_bash", "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1), "_TYPER_COMPLETE_ARGS": words,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "milan"], capture_output=True, text=True, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
        return done.stdout

    assert "describe" in complete("milan des")
    assert "--batch-size" in complete("milan describe --ba")


def test_python_m_milan_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "milan", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("milannotations ")
