"""Commands and Python of the README and the pages run as they stand, in the order they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "baselines/README.md",
    *(f"docs/{p.name}" for p in sorted(ROOT.glob("docs/*.md"))),
)


def blocks(page):
    """Return the blocks of a page that are run: language, name of a reader's own file, text."""
    return re.findall(
        r"^```(bash|python)(?: (\w+\.py))?\n(.*?)^```",
        (ROOT / page).read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )


RUN = [(page, number) for page in PAGES for number in range(len(blocks(page)))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return an empty folder for each page: its commands need nothing but what ships."""
    return {page: tmp_path_factory.mktemp(Path(page).stem) for page in PAGES}


def environment():
    commands = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "HOME": os.environ["HF_HOME"],  # what commands keep in the home folder is kept there
    }


@pytest.mark.parametrize(("page", "number"), RUN)
def test_block_runs(folders, page, number):
    folder = folders[page]
    language, file, block = blocks(page)[number]
    if file:  # a reader's own file, which the commands below it name
        (folder / file).write_text(block, encoding="utf-8")
        return
    lines = block.replace("\\\n", "").splitlines()  # a command may go on in the next line
    commands = (
        [["sh", "-ec", line] for line in lines if line.strip()]
        if language == "bash"
        else [[sys.executable, "-c", block]]
    )
    for command in commands:
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command[-1]


def test_the_commands_led_to_a_row_of_the_leaderboard(folders):
    """What the page of submissions has built; it ran before."""
    site = folders["docs/submit.md"] / "site"
    if not site.is_dir():
        pytest.skip("needs the commands of docs/submit.md to have run before, in this process")
    pages = {path.name: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    row = [name for name, page in pages.items() if "brightness" in page and "nearest" in page]
    assert row, sorted(pages)
    assert any("stranger@example.org" in page for page in pages.values()) is False


def test_there_is_something_to_run():
    languages = [language for language, file, _ in blocks("README.md") if not file]
    assert languages.count("bash") >= 1
    assert languages.count("python") >= 2
    assert len({page for page, _ in RUN}) >= 8


def test_python_for_a_score_takes_at_most_ten_lines():
    block = next(text for _, _, text in blocks("README.md") if "leaderboard.score" in text)
    assert len(block.strip().splitlines()) <= 10


def test_the_readme_is_for_a_first_visit():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 125


def test_every_link_leads_somewhere():
    for page in [*ROOT.glob("**/README.md"), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        if ".venv" in page.parts:
            continue
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page}: {link}"
