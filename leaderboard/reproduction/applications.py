"""The applications with the paper's settings: `milan reproduce analyze|audit|edit`.

Hernandez et al. 2022: analysis of ResNet-18 (1,024 units of conv1 and layer1 to layer4, 2 % of them
a step, five random orders, seven scores); audit of twelve architectures trained on ImageNet and on
ImageNet with blurred faces (five words, anywhere in words). Without files these run on the mini
world, with the same settings and MILAN's descriptions.

What differs from 2022, and why: controls of the same layers stand beside the unmatched ones, the
last step is 20 % rather than 18 %, every draw has a seed, and the audit's claim on training data is
a test over pairs rather than two sums.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard.applications import TASKS
from leaderboard.evaluation import predictions
from leaderboard.record_format import application_record
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.record_format.application_record import ApplicationRecord

METHOD = "milan"
RESNET18 = ("conv1", "layer1", "layer2", "layer3", "layer4")
SEEDS = 5


def reproduce(
    task: str,
    out: str | os.PathLike[str],
    files: Sequence[str] = (),
    *,
    model: str = "torchvision:resnet18@DEFAULT",
    weights: str | None = None,
    images: str | None = None,
    layers: Sequence[str] = RESNET18,
    seeds: int = SEEDS,
    cache: str | None = None,
    tell: Callable[[str], Any] = lambda line: None,
    **edit: Any,
) -> ApplicationRecord:
    """Return what a task comes to with the paper's settings, and write its folder.

    Args:
        task: `analyze`, `audit` or `edit`.
        out: folder of the record.
        files: MILAN's descriptions; none takes the mini world. For `audit`, of all 24 networks.
        model, weights, images, layers: of an analysis of photographs.
        seeds: networks of the mini world, or pairs of them.
        cache: folder that keeps these.
        tell: is called with a line of progress.
        edit: more of `edit_reproduce.reproduce_edit`.

    Raises:
        InputError: another task; descriptions without pictures to measure accuracy on.
    """
    from leaderboard.applications.common.mini_networks import Workshop

    if task not in TASKS:
        raise InputError(f"No task '{task}' (tasks: {', '.join(TASKS)}).")
    application_record.check_free(out, task)
    if task == "edit":
        from leaderboard.reproduction.edit import reproduce_edit

        if files:
            raise InputError(
                "The networks of 2022's edit were never published: they are trained anew, and "
                "described then. For descriptions of a network of your own: milan edit."
            )
        return reproduce_edit(out, images, seeds=seeds, cache=cache, tell=tell, **edit)
    asked = {"reproduce": task, "files": [Path(file).name for file in files]}
    said = predictions.read(*files) if files else None
    workshop = Workshop(Path(cache) if cache else None, tell=tell) if said is None else None
    if task == "audit":
        return _audit(workshop, said, seeds, asked, out)
    if workshop is not None:
        from leaderboard.applications.analyze.mini import MiniAnalysis

        mini = MiniAnalysis(workshop, range(seeds))
        return mini.analyze(METHOD, None, _paper(), asked).save(out)
    if images is None:
        raise InputError(
            "On which pictures is accuracy measured? Add --images, such as imagenet/val."
        )
    from leaderboard.applications.analyze.language import open_language
    from leaderboard.applications.analyze.task import analyze
    from leaderboard.applications.common.open_network import open_target

    assert said is not None
    language = open_language()
    target = open_target(said, model, images, layers, weights=weights)
    data = str(target.images.get("name", ""))
    made = analyze(said, [target], language, _paper(), method=METHOD, data=data, asked=asked)
    return made.save(out)


def _paper() -> Any:
    from leaderboard.applications.analyze.config import AnalyzeConfig

    return AnalyzeConfig(step=0.02, most=0.2, draws=5, how="zero", seed=0)


def _audit(
    workshop: Any, said: Any, seeds: int, asked: dict[str, Any], out: str | os.PathLike[str]
) -> ApplicationRecord:
    from leaderboard.applications.audit.config import PRESETS, AuditConfig
    from leaderboard.applications.audit.mini import AT, MiniAudit
    from leaderboard.applications.audit.task import audit

    if said is None:
        mini = MiniAudit(workshop, range(seeds))
        settings = AuditConfig(matching="substrings", at=AT)
        return mini.save(mini.audit(METHOD, None, settings, asked), Path(out))
    pairs = PRESETS["milan2022"]
    settings = AuditConfig(matching="substrings")
    made = audit(said, pairs=pairs, settings=settings, method=METHOD, data="imagenet", asked=asked)
    return made.save(out)
