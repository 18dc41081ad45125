"""Every method on every task, on the mini world: `milan run --tasks`.

Networks are trained once, their exemplars drawn once, and every method describes each network
once; what a task measures of a network whatever the method, such as its accuracy without some
units, is measured once as well. Two processes share the work, by network and then by task.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leaderboard.applications import TASKS
from leaderboard.record_format import application_record
from leaderboard.record_format.application_record import ApplicationRecord
from milannotations.errors import InputError, did_you_mean
from milannotations.synthetic.training import Settings as Training

SEEDS = 3
PLACEBOS = 19
PICTURES = 100
"""On which the analysis measures accuracies: the same for an order and for its control."""

STEP, DRAWS = 0.1, 3
"""Of the analysis: shares of units ablated a step, and random orders. `milan analyze` takes 2 % a
step and five orders."""

EDIT_PICTURES = 200
"""Of each role, and edits by `edit-conflict` alone. `milan edit` takes 1,000 and both protocols."""


@dataclass(frozen=True)
class TaskJob:
    """What a process is to do: describe the units of a network, or run a task."""

    kind: str
    folder: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    training: Training
    scenes: int
    placebos: int
    pictures: int
    edit_pictures: int
    out: str = ""
    seed: int = 0
    place: int = 0


def names(asked: Sequence[str] | None) -> list[str]:
    """Return tasks by name, in their order; `all` is all of them.

    Raises:
        InputError: no such task.

    Example:
        >>> names(["audit", "analyze"])
        ['analyze', 'audit']
    """
    wanted = list(asked or ["all"])
    for name in wanted:
        if name != "all" and name not in TASKS:
            raise InputError(
                f"No task '{name}' (tasks: {', '.join(TASKS)}, all).{did_you_mean(name, TASKS)}"
            )
    return [name for name in TASKS if name in wanted or "all" in wanted]


def run(
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    *,
    seeds: int = SEEDS,
    placebos: int = PLACEBOS,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    training: Training | None = None,
    scenes: int | None = None,
    pictures: int = PICTURES,
    edit_pictures: int = EDIT_PICTURES,
    tell: Callable[[str], Any] = lambda line: None,
) -> list[ApplicationRecord]:
    """Return what every method's descriptions come to in every task, on the mini world.

    Args:
        tasks: names; None is all of them.
        methods: names or paths; None is all that can describe these networks with what ships.
        seeds: networks of each kind.
        placebos: of an edit.
        seed: of the tasks' draws; networks are of seeds from `seed` on.
        out: folder to write outcomes to, `<task>-mini/<method>-<version>`; None keeps none.
        cache: folder that keeps networks, exemplars and descriptions between runs.
        workers: processes; None takes one a core, up to two.
        training, scenes: how networks are trained, and scenes that exemplars are drawn from.
        pictures, edit_pictures: on which accuracies are measured.
        tell: is called with a line of progress.

    Raises:
        InputError: no such task or method; a place for an outcome that holds something else.
    """
    import baselines
    from leaderboard.applications.common.mini_networks import (
        EXEMPLAR_SCENES,
        SETTINGS,
        check_describer,
        describers,
    )

    wanted = names(tasks)
    chosen = tuple(methods or describers())
    for method in chosen:
        check_describer(method)
    titles = [_title(baselines.get(method).spec) for method in chosen]
    if len(set(titles)) < len(titles):
        raise InputError("Two of the methods have one name; methods need names of their own.")
    if out is not None:
        for task in wanted:
            for title in titles:
                application_record.check_free(Path(out) / f"{task}-mini" / title, task)
    workers = workers or min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="milan-tasks-") as temporary:
        job = TaskJob(
            "",
            str(cache or Path(temporary) / "cache"),
            chosen,
            tuple(range(seed, seed + seeds)),
            training or SETTINGS,
            scenes or EXEMPLAR_SCENES,
            placebos,
            pictures,
            edit_pictures,
            str(out or Path(temporary) / "out"),
            seed,
        )
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        made = range(len(_networks(job, wanted)))
        first = [replace(job, kind="+".join(wanted), place=place) for place in made]
        for line in _each(_describe, first, workers):
            tell(line)
        found: list[ApplicationRecord] = []
        # the longest first
        second = [replace(job, kind=task) for task in reversed(wanted)]
        for folders in _each(_task, second, workers):
            own = [application_record.load(folder) for folder in folders]
            tell(f"{own[0].kind}: {len(own)} methods")
            found = own + found
    return found


def _each(what: Callable[[TaskJob], Any], jobs: Sequence[TaskJob], workers: int) -> Iterator[Any]:
    """Yield what is made of each job, in order."""
    if workers < 2 or len(jobs) < 2:
        yield from map(what, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(what, jobs)


def _networks(job: TaskJob, tasks: Sequence[str]) -> list[tuple[Any, int, Any, str]]:
    """Return the networks that tasks need: world, seed, what exemplars are of, measured concept."""
    from leaderboard.applications.audit import mini as audit_mini
    from leaderboard.applications.edit import mini as edit_mini

    made = []
    if {"analyze", "edit"} & set(tasks):  # these take longest, so they come first
        world = edit_mini.WORLD
        made += [(world, seed, world, "text") for seed in job.seeds]
    if "audit" in tasks:
        pair = (audit_mini.WORLD, replace(audit_mini.WORLD, blurred_faces=True))
        made += [(world, seed, audit_mini.SHOWN, "face") for seed in job.seeds for world in pair]
    return made


def _workshop(job: TaskJob) -> Any:
    import torch

    from leaderboard.applications.common.mini_networks import Workshop

    torch.set_num_threads(1)  # processes share the cores; two threads each would wait for another
    return Workshop(Path(job.folder), job.training, job.scenes)


def _describe(job: TaskJob) -> str:
    """Make a network with its exemplars, and let all methods describe its units."""
    from leaderboard.applications.edit.mini import MiniTrials, fast

    workshop = _workshop(job)
    world, seed, shown, concept = _networks(job, job.kind.split("+"))[job.place]
    network = workshop.network(world, seed)
    workshop.inside(network, shown, concept)
    for method in job.methods:
        workshop.describe(method, network, shown)
    # most of the work: kept in the folder, where the tasks find it
    if world.text and "analyze" in job.kind.split("+"):
        analysis, settings = _analysis(workshop, replace(job, seeds=(seed,)))
        for method in job.methods:
            analysis.analyze(method, None, settings)
    if world.text and "edit" in job.kind.split("+"):
        made = MiniTrials(workshop, [seed], job.edit_pictures)
        for method in job.methods:
            made.measure(method, fast(job.placebos, job.seed))
    return f"{network.name}: described by {len(job.methods)} methods"


def _task(job: TaskJob) -> list[str]:
    """Run a task for all methods; return the folders of the outcomes."""
    import baselines

    workshop = _workshop(job)
    run = {"analyze": _analyze, "audit": _audit, "edit": _edit}[job.kind](workshop, job)
    folders = []
    for method in job.methods:
        folder = Path(job.out) / f"{job.kind}-mini" / _title(baselines.get(method).spec)
        run(method, folder)
        folders.append(str(folder))
    return folders


def _asked(job: TaskJob) -> dict[str, Any]:
    return {
        "seeds": list(job.seeds),
        "training": asdict(job.training),
        "scenes": job.scenes,
        "command": f"milan run --tasks {job.kind}",
    }


def _analysis(workshop: Any, job: TaskJob) -> tuple[Any, Any]:
    from leaderboard.applications.analyze.config import AnalyzeConfig
    from leaderboard.applications.analyze.mini import SIMILAR_TO, MiniAnalysis

    settings = AnalyzeConfig(similar_to=SIMILAR_TO, step=STEP, draws=DRAWS, seed=job.seed)
    return MiniAnalysis(workshop, job.seeds, job.pictures), settings


def _analyze(workshop: Any, job: TaskJob) -> Callable[[str, Path], Any]:
    made, settings = _analysis(workshop, job)
    return lambda method, folder: made.analyze(method, None, settings, _asked(job)).save(folder)


def _audit(workshop: Any, job: TaskJob) -> Callable[[str, Path], Any]:
    from leaderboard.applications.audit.config import AuditConfig
    from leaderboard.applications.audit.mini import AT, MiniAudit

    made = MiniAudit(workshop, job.seeds)
    settings = AuditConfig(at=AT, seed=job.seed)
    return lambda method, folder: made.save(made.audit(method, None, settings, _asked(job)), folder)


def _edit(workshop: Any, job: TaskJob) -> Callable[[str, Path], Any]:
    from leaderboard.applications.edit.mini import MiniTrials, fast

    made = MiniTrials(workshop, job.seeds, job.edit_pictures)
    settings = fast(job.placebos, job.seed)
    return lambda method, folder: made.edit(method, None, settings, _asked(job)).save(folder)


def _title(spec: Any) -> str:
    return f"{spec.name}-{spec.version}"
