"""What can be wrong with an installation, found before it costs somebody an afternoon."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from milannotations.utils.check_result import CheckResult

DISTRIBUTION = "milannotations"
PACKAGES = ("milannotations", "milan", "baselines", "leaderboard")


def run_checks(images: str | os.PathLike[str] | None = None) -> list[CheckResult]:
    """Return every check's answer; none raises.

    Args:
        images: a folder of ImageNet validation pictures to look into as well.
    """
    return [
        *map(check_package, PACKAGES),
        check_python(),
        check_requirements(),
        check_text_model(),
        *(() if images is None else check_images(images)),
    ]


def check_images(folder: str | os.PathLike[str]) -> list[CheckResult]:
    """Check that a folder holds the ImageNet validation pictures in the order of their ids."""
    from milannotations.published import imagenet

    return [
        replace(result, name=f"images: {result.name}") for result in imagenet.check_folder(folder)
    ]


def check_package(room: str) -> CheckResult:
    """Check that a top-level package is ours: no other distribution has put files there.

    `milan` and `baselines` are common words; whoever is installed last wins the
    folder, and the imports of the other break in ways that do not say so.
    """
    others = sorted(
        {
            name or "without a name"
            for name in metadata.packages_distributions().get(room, [])
            if (name or "").lower() != DISTRIBUTION
        }
    )
    if others:
        return CheckResult.of(
            f"package {room}",
            False,
            f"the distribution '{others[0]}' owns {room}/ too. Uninstall it (pip uninstall "
            f"{others[0]}) and install this one again from its sources: "
            "pip install --force-reinstall --no-deps -e .",
        )
    home = Path(__file__).resolve().parent.parent
    found = importlib.util.find_spec(room)
    where = Path(found.origin).resolve().parent if found and found.origin else None
    if where is None:
        return CheckResult.of(
            f"package {room}", False, f"cannot be found; expected at {home / room}"
        )
    if where != home / room:
        return CheckResult.of(
            f"package {room}",
            False,
            f"is imported from {where}, not from {home / room}: a folder of that name comes "
            "first on the path. Run from another folder, or remove it.",
        )
    return CheckResult.of(f"package {room}", True, str(where))


def check_python() -> CheckResult:
    """Check the version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    return CheckResult.of(
        "python", sys.version_info >= (3, 11), f"{version} (3.11 or later is needed)"
    )


def check_requirements() -> CheckResult:
    """Check that every required distribution is there, in a version that will do."""
    from packaging.requirements import Requirement

    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return CheckResult.of(
            "requirements", False, f"{DISTRIBUTION} is not installed: pip install -e ."
        )
    wrong, count = [], 0
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, {requirement.specifier} is needed")
    if wrong:
        return CheckResult.of("requirements", False, "; ".join(wrong) + ". Mend: pip install -e .")
    return CheckResult.of("requirements", True, f"{count} distributions in versions that will do")


def check_text_model() -> CheckResult:
    """Say which text model the neural metrics would take by default."""
    from leaderboard.metrics.text_models import TextModel
    from milannotations.errors import InputError

    try:
        return CheckResult.of("text model", True, f"{TextModel.parse(None).label} at hand")
    except InputError as error:
        return CheckResult.of("text model", True, f"none; lexical metrics work. {error}")
