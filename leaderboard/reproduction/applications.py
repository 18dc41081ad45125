"""Applications with the settings of the paper: `milan reproduce analyze|audit|edit`.

Hernandez et al. 2022: an analysis of ResNet-18 (1,024 units of conv1 and layer1 to layer4, 2 % of
them per step, five random orders, seven scores); an audit of twelve architectures trained on
ImageNet and on ImageNet with blurred faces (five words, matched as substrings). Without files these
run on the mini world, with the same settings and MILAN's descriptions.

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
from leaderboard.evaluation import predictions as prediction_files
from leaderboard.record_format import application_record
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.applications.analyze.config import AnalyzeConfig
    from leaderboard.applications.common.mini_networks import MiniNetworkFactory
    from leaderboard.evaluation.predictions import Predictions
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
    **edit_options: Any,
) -> ApplicationRecord:
    """Run a task with the settings of the paper, and write its record.

    Args:
        task: `analyze`, `audit` or `edit`.
        out: folder of the record.
        files: files of MILAN's descriptions; for `audit`, of all 24 networks (default: the mini
            world is described).
        model, weights, layers: network of an analysis of photographs, and its layers.
        images: test images of an analysis; of an edit, all images.
        seeds: networks of the mini world, or pairs of them.
        cache: folder that keeps them.
        tell: called with each line of progress.
        edit_options: options of `reproduce_edit`.

    Raises:
        InputError: no such task; descriptions without test images; descriptions for an edit.
    """
    from leaderboard.applications.common.mini_networks import MiniNetworkFactory

    if task not in TASKS:
        raise InputError(f"No task '{task}' (tasks: {', '.join(TASKS)}).")
    application_record.check_free(out, task)
    if task == "edit":
        from leaderboard.reproduction.edit import reproduce_edit

        if files:
            raise InputError(
                "--predictions cannot be used with edit: the networks of 2022's edit were never "
                "published, so they are trained and described again. For descriptions of your own "
                "network: milan edit."
            )
        return reproduce_edit(out, images, seeds=seeds, cache=cache, tell=tell, **edit_options)
    asked = {"reproduce": task, "files": [Path(file).name for file in files]}
    if not files:
        factory = MiniNetworkFactory(Path(cache) if cache else None, tell=tell)
        return _reproduce_mini(task, factory, range(seeds), asked, out)
    predictions = prediction_files.read(*files)
    if task == "audit":
        return _reproduce_audit(predictions, asked, out)
    if images is None:
        raise InputError(
            "No test images to measure accuracy on: add --images DIR, such as imagenet/val."
        )
    from leaderboard.applications.analyze.language import open_language
    from leaderboard.applications.analyze.task import analyze
    from leaderboard.applications.common.ablated_accuracy import TEST
    from leaderboard.applications.common.open_network import open_network
    from leaderboard.applications.common.task_result import TaskInfo

    language = open_language()
    network = open_network(predictions, model, images, layers, weights=weights)
    data = str(network.images[TEST].source.get("name", ""))
    info = TaskInfo(METHOD, data, asked)
    return analyze(predictions, [network], language, _paper_config(), info).save(out)


def _paper_config() -> AnalyzeConfig:
    from leaderboard.applications.analyze.config import AnalyzeConfig

    return AnalyzeConfig(step=0.02, most=0.2, draws=5, how="zero", seed=0)


def _reproduce_mini(
    task: str,
    factory: MiniNetworkFactory,
    seeds: Sequence[int],
    asked: dict[str, Any],
    out: str | os.PathLike[str],
) -> ApplicationRecord:
    """Run an analysis or audit on the mini world, with the settings of the paper."""
    if task == "analyze":
        from leaderboard.applications.analyze.mini import MiniAnalysis

        analysis = MiniAnalysis(factory, seeds).run(METHOD, None, _paper_config(), asked)
        return analysis.save(out)
    from leaderboard.applications.audit.config import AuditConfig
    from leaderboard.applications.audit.mini import AT, MiniAudit

    config = AuditConfig(matching="substrings", at=AT)
    return MiniAudit(factory, seeds).run(METHOD, None, config, asked).save(out)


def _reproduce_audit(
    predictions: Predictions, asked: dict[str, Any], out: str | os.PathLike[str]
) -> ApplicationRecord:
    """Run the audit of the paper's pairs of networks on files of descriptions."""
    from leaderboard.applications.audit.config import PRESETS, AuditConfig
    from leaderboard.applications.audit.task import audit
    from leaderboard.applications.common.task_result import TaskInfo

    config = AuditConfig(matching="substrings")
    info = TaskInfo(METHOD, "imagenet", asked)
    return audit(predictions, pairs=PRESETS["milan2022"], config=config, info=info).save(out)
