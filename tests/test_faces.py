"""Public names of the packages: they complete, they resolve, and none imports torch by itself."""

import importlib
import subprocess
import sys

import pytest

FACES = (
    "milannotations",
    "milannotations.exemplars",
    "milannotations.synthetic",
    "milan",
    "baselines",
    "leaderboard",
    "leaderboard.grounding",
)


@pytest.mark.parametrize("name", FACES)
def test_dir_shows_the_public_names_and_they_resolve(name):
    face = importlib.import_module(name)
    shown = set(dir(face))
    assert set(face.__all__) - {"__version__", "InputError", "Unit"} <= shown
    for public in face.__all__:
        assert getattr(face, public) is not None, public
    with pytest.raises(AttributeError):
        face.nothing_of_this_name  # noqa: B018


def test_the_four_packages_have_one_version():
    from importlib.metadata import version

    packages = [importlib.import_module(name) for name in
                ("milannotations", "milan", "baselines", "leaderboard")]  # fmt: skip
    assert {package.__version__ for package in packages} == {version("milannotations")}


def test_importing_the_packages_imports_no_torch():
    code = f"import sys, {', '.join(FACES)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
