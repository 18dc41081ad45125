"""Checks of an installation: packages, Python, requirements, text model, ImageNet images."""

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
    """Run every check; none of them raises.

    Args:
        images: folder of ImageNet validation images to check as well.
    """
    return [
        *map(check_package, PACKAGES),
        check_python(),
        check_requirements(),
        check_text_model(),
        *(() if images is None else check_images(images)),
    ]


def check_images(folder: str | os.PathLike[str]) -> list[CheckResult]:
    """Check that a folder holds the ImageNet validation images in the order of their ids."""
    from milannotations.published import imagenet

    return [
        replace(result, name=f"images: {result.name}") for result in imagenet.check_folder(folder)
    ]


def check_package(package: str) -> CheckResult:
    """Check that a top-level package is ours, and that no other distribution has files in it.

    `milan` and `baselines` are common names. The distribution that was installed last overwrites
    the folder, and imports of the other one break without naming the cause.
    """
    name = f"package {package}"
    others = sorted(
        {
            distribution or "without a name"
            for distribution in metadata.packages_distributions().get(package, [])
            if (distribution or "").lower() != DISTRIBUTION
        }
    )
    if others:
        return CheckResult.of(
            name,
            False,
            f"the distribution '{others[0]}' has files in {package}/ too. Uninstall it (pip "
            f"uninstall {others[0]}) and install this one again from its sources: "
            "pip install --force-reinstall --no-deps -e .",
        )
    expected = Path(__file__).resolve().parent.parent / package
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if folder is None:
        return CheckResult.of(name, False, f"not found; expected at {expected}")
    if folder != expected:
        return CheckResult.of(
            name,
            False,
            f"imported from {folder}, expected {expected}: a folder of that name comes first on "
            "the path. Run from another folder, or remove it.",
        )
    return CheckResult.of(name, True, str(folder))


def check_python() -> CheckResult:
    """Check the version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    return CheckResult.of(
        "python", sys.version_info >= (3, 11), f"{version} (expected 3.11 or later)"
    )


def check_requirements() -> CheckResult:
    """Check that every required distribution is installed in a compatible version."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return CheckResult.of(
            "requirements", False, f"{DISTRIBUTION} is not installed. Run: pip install -e ."
        )
    errors, count = [], 0
    for line in lines:
        requirement = Requirement(line)
        # Requirements of extras have a marker that is false without the extra.
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            errors.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            errors.append(f"{requirement.name} is {version}, expected {requirement.specifier}")
    if errors:
        return CheckResult.of("requirements", False, "; ".join(errors) + ". Run: pip install -e .")
    return CheckResult.of("requirements", True, f"{count} distributions in compatible versions")


def check_text_model() -> CheckResult:
    """Report the default text model of the neural metrics; its absence is not an error."""
    from leaderboard.metrics.text_models import TextModel
    from milannotations.errors import InputError

    try:
        return CheckResult.of("text model", True, f"{TextModel.parse(None).label} is available")
    except InputError as error:
        return CheckResult.of("text model", True, f"none; lexical metrics work. {error}")
