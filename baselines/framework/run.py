"""Run a method on units: what it may see, in batches, its answers checked."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, Method, MethodSpec
from baselines.framework.provenance import Account
from baselines.framework.registry import get
from baselines.framework.resume import DescriptionLog, resume_key
from baselines.shared.subject import Subject
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.progress import progress_bar

BATCH_SIZE = 256
"""Units described at a time: those that share pictures share the work of encoding them."""

EXEMPLAR_COLUMNS = ("images", "masks", "source_ids", "activations", "threshold")
"""Columns that `shuffled_exemplars` moves."""


def describe(
    edition: str | os.PathLike[str],
    method: str | os.PathLike[str] | Method,
    *,
    config: str | None = None,
    split: str | None = None,
    network: str | None = None,
    layers: str | Sequence[str] = (),
    training: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    subject: Subject | None = None,
    blind: bool = False,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
    journal: DescriptionLog | None = None,
    account: Account | None = None,
) -> list[tuple[Unit, Description]]:
    """Describe the units of an edition.

    Args:
        edition: folder, or the name of an embedded edition (`mini`).
        method: name, `path/to/file.py`, or a method from `baselines.get`.
        config: config of the edition; may be left out if there is only one.
        split: such as `test` or `train+test`; None is every split.
        network: units of this network alone.
        layers: units of these layers alone.
        training: edition to learn from, of the same config if there are several
            (default: the same edition); its split `train` alone is read.
        options: what the method's `create` takes, such as `{"model": folder}`.
        subject: the network and a probe data set, for methods that need activations (the
            networks of `mini` are at hand).
        blind: show the method other units' exemplars (`shuffled_exemplars`): the control, whose
            descriptions have no lift.
        seed: of every draw.
        batch_size: units described at a time; no answer depends on it.
        progress: show a progress bar.
        journal: where answers are kept over interruptions.
        account: is told what the method is, took, and chose on.

    Returns:
        Each unit with its answer, in the edition's order.

    Raises:
        InputError: anything that the caller can mend, with what to do.
    """
    named = {"method": method, **(options or {})}
    if isinstance(method, str | os.PathLike):
        method = get(os.fspath(method), **(options or {}))
    elif options:
        raise InputError("Options are for a method by name; this one is made already.")
    units = open_units(edition, config=config, split=split, network=network, layers=layers)
    learns = "training" in method.spec.requires
    learn_from = open_training(training or edition, config) if learns else None
    context = make_context(method.spec, units, learn_from, subject, seed)
    members, known = unit_keys(units), []
    if journal is not None:
        data = f"{training or ''} {subject or ''} {'blind' * blind} {units._fingerprint}"
        known = journal.open(resume_key(method.spec, named, seed, members, data))
    account = account or Account()
    account.options = {name: str(value) for name, value in (options or {}).items()}
    account.blind, account.n_kept = blind, len(known)
    left = shuffled_exemplars(units, seed) if blind else units
    left = left.select(range(len(known), len(units)))
    answers = run(
        method,
        left,
        context,
        batch_size=batch_size,
        progress=progress,
        keep=None if journal is None else journal.add,
        account=account,
    )
    return list(zip(members, [*known, *answers], strict=True))


def run(
    method: Method,
    units: Any,
    context: Context | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
    keep: Callable[[list[Description]], Any] | None = None,
    account: Account | None = None,
) -> list[Description]:
    """Return a method's answers, one a unit, in order.

    The method gets the columns that its spec lets it see and no other.

    Args:
        method: from `baselines.get`.
        units: `datasets.Dataset` with the columns of the schema; it may be empty.
        context: what the method requires (default: only a seed).
        batch_size: units described at a time.
        progress: show a progress bar.
        keep: is given the answers of each batch.
        account: is told what the method is, took, and chose on.

    Raises:
        InputError: something that the method requires is missing; the method returned
            something else than one `Description` a unit.
    """
    name, context = method.spec.name, context or Context()
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; at least 1 was expected.")
    _check_supplied(method, context)
    account = account or Account()
    account.method, account.seed = method.spec.to_dict(), context.seed
    visible = units.select_columns(list(method.spec.columns))
    answers: list[Description] = []
    starts = range(0, len(units), batch_size)
    for start in progress_bar(starts, description=name, enabled=progress, unit="batch"):
        part = visible.select(range(start, min(start + batch_size, len(units))))
        members = unit_keys(part)
        begun = time.perf_counter()
        try:
            with redirect_stdout(sys.stderr):  # what a method prints is no result of ours
                made = method.describe(part, context)
        except InputError:
            raise
        except (OSError, SystemExit) as error:
            # a bug of the method's, and not a file that the caller named or a wish to leave
            raise RuntimeError(f"'{name}' stopped: {error!r}") from error
        except Exception as error:
            error.add_note(f"while '{name}' described {members[0]} to {members[-1]}")
            raise
        answers.extend(_checked(made, name, members))
        account.seconds += time.perf_counter() - begun
        account.n_units += len(part)
        account.tokens_in, account.tokens_out = getattr(method, "tokens", (None, None))
        account.chosen_on = context.chosen_on
        if keep is not None:
            keep(answers[start:])
    return answers


def make_context(
    spec: MethodSpec,
    units: Any,
    training: Any | None = None,
    subject: Subject | None = None,
    seed: int = 0,
) -> Context:
    """Return what a method requires, and no more.

    Args:
        spec: of the method.
        units: that it is to describe. The networks of the mini world are at hand.
        training: units to learn from.
        subject: another network, with a probe data set.
        seed: of every draw.

    Raises:
        InputError: as `Subject.probe_statistics`.
    """
    statistics = None
    if "activations" in spec.requires:
        if subject is not None:
            statistics = subject.probe_statistics(unit_keys(units))
        else:
            from milannotations.synthetic.unit_plan import NETWORKS

            named = dict.fromkeys(unit.network for unit in unit_keys(units))
            if set(named) <= set(NETWORKS):
                from baselines.shared.probe_statistics import mini_probe_statistics

                statistics = mini_probe_statistics(list(named))
    return Context(
        seed=seed,
        training=training if "training" in spec.requires else None,
        probe_statistics=statistics,
    )


def open_units(
    edition: str | os.PathLike[str],
    *,
    config: str | None = None,
    split: str | None = None,
    network: str | None = None,
    layers: str | Sequence[str] = (),
) -> Any:
    """Return units of an edition, as `describe` takes them, with every column.

    Raises:
        InputError: no such edition, config, split, network or layer.
    """
    from datasets import concatenate_datasets

    from milannotations.editions import loading

    made = loading.load(edition, config, split)
    units = concatenate_datasets(list(made.values())) if split is None else made
    wanted = [layers] if isinstance(layers, str) else list(layers)
    members = unit_keys(units)
    for kind, asked, known in (
        ("network", [network] if network else [], [unit.network for unit in members]),
        ("layer", wanted, [unit.layer for unit in members]),
    ):
        for name in asked:
            if name not in known:
                raise InputError(
                    f"No unit of {kind} '{name}' in {edition} "
                    f"({kind}s: {', '.join(dict.fromkeys(known))})."
                )
    if not network and not wanted:
        return units
    return units.select(
        [
            i
            for i, unit in enumerate(members)
            if network in (None, "", unit.network) and (not wanted or unit.layer in wanted)
        ]
    )


def open_training(edition: str | os.PathLike[str], config: str | None = None) -> Any | None:
    """Return the split `train` of an edition; None if it has none.

    An edition of one config is opened whatever `config` is.

    Raises:
        InputError: no such edition or config.
    """
    from milannotations.editions import loading
    from milannotations.editions.configs import list_configs

    known = list_configs(edition)
    made = loading.load(edition, None if len(known) == 1 else config)
    return made.get("train")


def unit_keys(units: Any) -> list[Unit]:
    """Return the key of each row of a dataset of units."""
    columns = (units[name] for name in ("network", "layer", "unit"))
    return [Unit(*key) for key in zip(*columns, strict=True)]


def shuffled_exemplars(units: Any, seed: int = 0) -> Any:
    """Return the units with their exemplars dealt anew among the units of each layer.

    The blind control: a method that looks at these pictures knows nothing of the
    unit, so its descriptions have no lift. Within each (network, layer) the columns
    `EXEMPLAR_COLUMNS` move by a random permutation. About one unit a layer keeps its own: if
    none could, the expected lift would be -1/(n - 1) of the method's own instead of 0.

    Args:
        units: `datasets.Dataset` of units.
        seed: of the permutations.

    Returns:
        `datasets.Dataset` with the same columns, and the other columns as they were.
    """
    from datasets import Dataset
    from datasets.table import InMemoryTable

    draw, members = Context(seed=seed).draw, unit_keys(units)
    if not members:
        return units
    layers: dict[tuple[str, str], list[int]] = {}
    for i, unit in enumerate(members):
        layers.setdefault(unit[:2], []).append(i)
    source = [0] * len(members)
    for places in layers.values():
        dealt = sorted(places, key=lambda i: draw("shuffle", members[i], below=2**256))
        for i, other in zip(places, dealt, strict=True):
            source[i] = other
    rows = units.with_format("arrow")
    table, moved = rows[:], rows[source]
    for name in EXEMPLAR_COLUMNS:
        table = table.set_column(table.column_names.index(name), name, moved[name])
    return Dataset(InMemoryTable(table), info=units.info.copy(), split=units.split)


def _check_supplied(method: Method, context: Context) -> None:
    name = method.spec.name
    if "training" in method.spec.requires and not context.has_training:
        raise InputError(
            f"'{name}' learns from described units, and there is no split 'train' to learn "
            "from. Give an edition that has one: training=EDITION (Context(training=rows))."
        )
    if "activations" in method.spec.requires and not context.has_activations:
        raise InputError(
            f"'{name}' needs the network's activations on probe images. Give both: --subject MODEL "
            "--probe PROBE, or baselines.Context(probe_statistics={name: ProbeStatistics(...)})."
        )


def _checked(made: Any, name: str, units: Sequence[Unit]) -> list[Description]:
    """Return answers, one a unit.

    Raises:
        InputError: they are something else.
    """
    if isinstance(made, str) or not isinstance(made, Sequence):
        raise InputError(
            f"'{name}' returned {type(made).__name__}; a list of Description was expected."
        )
    wrong = [i for i, one in enumerate(made) if not isinstance(one, Description)]
    if wrong:
        raise InputError(
            f"'{name}' returned {type(made[wrong[0]]).__name__} in place {wrong[0]}; "
            'expected Description.of("text"), Description.failed() or Description.abstained().'
        )
    if len(made) != len(units):
        raise InputError(
            f"'{name}' gave {len(made)} descriptions for {len(units)} units "
            f"({units[0]} to {units[-1]}); one a unit was expected, in order."
        )
    return list(made)
