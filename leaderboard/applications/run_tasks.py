"""Every method on every task of the mini world: `milan run --tasks`.

Networks are trained once, their exemplars are computed once, and every method describes each
network once; accuracies under ablation, which do not depend on the method, are measured once too.
Two processes share the work: first one job per network, then one per task.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leaderboard.applications import TASKS
from leaderboard.record_format import application_record
from leaderboard.record_format.application_record import ApplicationRecord
from milannotations.errors import InputError, did_you_mean
from milannotations.synthetic.training import FitConfig

if TYPE_CHECKING:
    from leaderboard.applications.common.mini_networks import MiniNetworkFactory
    from milannotations.synthetic.subjects import SubjectWorld

SEEDS = 3
"""Networks of each kind."""

PLACEBOS = 19
"""Placebos of an edit."""

IMAGES = 100
"""Images of the analysis: the same for an order and its control."""

STEP, DRAWS = 0.1, 3
"""Share of units per step, and random orders, of the analysis; `milan analyze` takes 2 % and five
orders."""

EDIT_IMAGES = 200
"""Images of each role of the edit, which goes by `edit-conflict` alone; `milan edit` takes 1,000
and both protocols."""


@dataclass(frozen=True)
class TaskJob:
    """Work of one process: describe one network for several tasks, or run one task.

    Attributes:
        tasks: names of the tasks.
        folder: cache of networks, exemplars, descriptions and accuracies.
        methods: names or paths of methods.
        seeds: random seeds of the networks.
        training: settings of the networks' training.
        scenes: scenes that exemplars are drawn from.
        placebos: placebos of an edit.
        images: images of the analysis.
        edit_images: images of each role of the edit.
        out: folder of the records.
        seed: random seed of the tasks' draws.
        index: index of the network to describe, among those that the tasks need.
    """

    tasks: tuple[str, ...]
    folder: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    training: FitConfig
    scenes: int
    placebos: int
    images: int
    edit_images: int
    out: str
    seed: int = 0
    index: int = 0


class _NetworkRequest(NamedTuple):
    """A network that tasks need, with the world of its exemplars and the measured concept."""

    world: SubjectWorld
    seed: int
    exemplar_world: SubjectWorld
    concept: str


def select_tasks(names: Sequence[str] | None) -> list[str]:
    """Return tasks by name, in the order of `TASKS`; `all` or None selects all of them.

    Raises:
        InputError: no such task.

    Example:
        >>> select_tasks(["audit", "analyze"])
        ['analyze', 'audit']
    """
    selected = list(names or ["all"])
    for name in selected:
        if name != "all" and name not in TASKS:
            raise InputError(
                f"No task '{name}' (tasks: {', '.join(TASKS)}, all).{did_you_mean(name, TASKS)}"
            )
    return [name for name in TASKS if name in selected or "all" in selected]


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
    training: FitConfig | None = None,
    scenes: int | None = None,
    images: int = IMAGES,
    edit_images: int = EDIT_IMAGES,
    tell: Callable[[str], Any] = lambda line: None,
) -> list[ApplicationRecord]:
    """Run tasks on the mini world with the descriptions of every method.

    Args:
        tasks: names of tasks (default: all).
        methods: names or paths of methods (default: all that can describe these networks with what
            ships).
        seeds: networks of each kind.
        placebos: placebos of an edit.
        seed: random seed of the tasks' draws; networks have seeds from `seed` on.
        out: folder of records, `<task>-mini/<method>-<version>` (default: none).
        cache: folder that keeps networks, exemplars and descriptions between runs.
        workers: processes (default: two).
        training, scenes: settings of the networks' training and of their exemplars.
        images: images of an analysis.
        edit_images: images of each role of an edit.
        tell: called with each line of progress.

    Returns:
        Records, by task and method.

    Raises:
        InputError: no such task or method; two methods of one name; a folder of a record holds
            something else.
    """
    from leaderboard.applications.common.mini_networks import (
        EXEMPLAR_SCENES,
        SETTINGS,
        available_methods,
        check_method_available,
    )

    selected = select_tasks(tasks)
    chosen = tuple(methods or available_methods())
    for method in chosen:
        check_method_available(method)
    titles = [_folder_name(method) for method in chosen]
    if len(set(titles)) < len(titles):
        raise InputError("Two of the methods have the same name; expected different names.")
    if out is not None:
        for task in selected:
            for title in titles:
                application_record.check_free(Path(out) / f"{task}-mini" / title, task)
    workers = workers or min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="milan-tasks-") as temporary:
        job = TaskJob(
            tuple(selected),
            str(cache or Path(temporary) / "cache"),
            chosen,
            tuple(range(seed, seed + seeds)),
            training or SETTINGS,
            scenes or EXEMPLAR_SCENES,
            placebos,
            images,
            edit_images,
            str(out or Path(temporary) / "out"),
            seed,
        )
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        networks = range(len(_list_networks(job)))
        describe_jobs = [replace(job, index=index) for index in networks]
        for line in _map_jobs(_describe_network, describe_jobs, workers):
            tell(line)
        records: list[ApplicationRecord] = []
        # The longest task comes first, so that the others fit beside it.
        task_jobs = [replace(job, tasks=(task,)) for task in reversed(selected)]
        for folders in _map_jobs(_run_task, task_jobs, workers):
            of_task = [application_record.load(folder) for folder in folders]
            tell(f"{of_task[0].kind}: {len(of_task)} methods")
            records = of_task + records
    return records


def _map_jobs(
    function: Callable[[TaskJob], Any], jobs: Sequence[TaskJob], workers: int
) -> Iterator[Any]:
    """Yield the result of each job, in order."""
    if workers < 2 or len(jobs) < 2:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, jobs)


def _list_networks(job: TaskJob) -> list[_NetworkRequest]:
    """Return the networks that the tasks need."""
    from leaderboard.applications.audit.mini import EXEMPLAR_WORLD, WORLDS
    from leaderboard.applications.common.mini_networks import TEXT_WORLD

    networks = []
    if {"analyze", "edit"} & set(job.tasks):  # these take longest, so they come first
        networks += [_NetworkRequest(TEXT_WORLD, seed, TEXT_WORLD, "text") for seed in job.seeds]
    if "audit" in job.tasks:
        networks += [
            _NetworkRequest(world, seed, EXEMPLAR_WORLD, "face")
            for seed in job.seeds
            for world in WORLDS
        ]
    return networks


def _create_factory(job: TaskJob) -> MiniNetworkFactory:
    import torch

    from leaderboard.applications.common.mini_networks import MiniNetworkFactory

    # Processes share the cores: with two threads each, they would wait for each other.
    torch.set_num_threads(1)
    return MiniNetworkFactory(Path(job.folder), job.training, job.scenes)


def _describe_network(job: TaskJob) -> str:
    """Train a network, compute its exemplars, and let all methods describe its units."""
    factory = _create_factory(job)
    request = _list_networks(job)[job.index]
    network = factory.network(request.world, request.seed)
    factory.mask_shares(network, request.exemplar_world, request.concept)
    for method in job.methods:
        factory.describe(method, network, request.exemplar_world)
    # Most of the work is accuracies under ablation: measured here, the tasks find them cached.
    own = replace(job, seeds=(request.seed,))
    if request.world.text and "analyze" in job.tasks:
        analysis, config = _create_task("analyze", factory, own)
        for method in job.methods:
            analysis.run(method, None, config)
    if request.world.text and "edit" in job.tasks:
        edit, config = _create_task("edit", factory, own)
        for method in job.methods:
            edit.measure(method, config)
    return f"{network.name}: described by {len(job.methods)} methods"


def _run_task(job: TaskJob) -> list[str]:
    """Run one task for all methods; return the folders of the records."""
    (task,) = job.tasks
    mini, config = _create_task(task, _create_factory(job), job)
    asked = {
        "seeds": list(job.seeds),
        "training": asdict(job.training),
        "scenes": job.scenes,
        "command": f"milan run --tasks {task}",
    }
    folders = []
    for method in job.methods:
        folder = Path(job.out) / f"{task}-mini" / _folder_name(method)
        mini.run(method, None, config, asked).save(folder)
        folders.append(str(folder))
    return folders


def _create_task(task: str, factory: MiniNetworkFactory, job: TaskJob) -> tuple[Any, Any]:
    """Return a task on the mini world, and its configuration."""
    if task == "analyze":
        from leaderboard.applications.analyze.config import AnalyzeConfig
        from leaderboard.applications.analyze.mini import SIMILAR_TO, MiniAnalysis

        analyze_config = AnalyzeConfig(similar_to=SIMILAR_TO, step=STEP, draws=DRAWS, seed=job.seed)
        return MiniAnalysis(factory, job.seeds, job.images), analyze_config
    if task == "audit":
        from leaderboard.applications.audit.config import AuditConfig
        from leaderboard.applications.audit.mini import AT, MiniAudit

        return MiniAudit(factory, job.seeds), AuditConfig(at=AT, seed=job.seed)
    from leaderboard.applications.edit.mini import MiniEdit, fast_config

    return MiniEdit(factory, job.seeds, job.edit_images), fast_config(job.placebos, job.seed)


def _folder_name(method: str) -> str:
    """Return name-version of a method."""
    import baselines

    spec = baselines.get(method).spec
    return f"{spec.name}-{spec.version}"
