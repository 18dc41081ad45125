"""Running a method: what it may see, in batches, with its descriptions checked."""

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
from baselines.framework.units import open_training, open_units, shuffled_exemplars, unit_keys
from baselines.shared.subject import Subject
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.progress import progress_bar

BATCH_SIZE = 256
"""Units described at a time; units with the same images share the work of encoding them."""


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
    log: DescriptionLog | None = None,
    account: Account | None = None,
) -> list[tuple[Unit, Description]]:
    """Describe the units of an edition.

    Args:
        edition: folder, or the name of an embedded edition (`mini`).
        method: name, `path/to/file.py`, or a method from `baselines.get`.
        config: config of the edition; not needed if there is only one.
        split: split to describe, such as `test` or `train+test` (default: all splits).
        network: describe only units of this network.
        layers: describe only units of these layers.
        training: edition to learn from (default: the described edition). Only its split `train`
            is read, of the same config if it has several.
        options: arguments of the method's `create`, such as `{"model": folder}`.
        subject: the network and a probe dataset, for methods that need activations (those of
            `mini` are built in).
        blind: show the method other units' exemplars (`shuffled_exemplars`), as a control:
            descriptions then have no lift.
        seed: random seed.
        batch_size: units described at a time; descriptions do not depend on it.
        progress: show a progress bar.
        log: file from which an interrupted run resumes.
        account: receives the method's spec and cost, and what its descriptions were chosen on.

    Returns:
        Each unit with its description, in the order of the edition.

    Raises:
        InputError: anything that the user can correct, with what to do.
    """
    create_options = options or {}
    settings = {"method": method, **create_options}
    if isinstance(method, str | os.PathLike):
        method = get(os.fspath(method), **create_options)
    elif options:
        raise InputError("Options are for a method given by name; this one is already created.")
    units = open_units(edition, config=config, split=split, network=network, layers=layers)
    learns = "training" in method.spec.requires
    training_units = open_training(training or edition, config) if learns else None
    context = make_context(method.spec, units, training_units, subject, seed)
    keys, resumed = unit_keys(units), []
    if log is not None:
        data = f"{training or ''} {subject or ''} {'blind' if blind else ''} {units._fingerprint}"
        resumed = log.open(resume_key(method.spec, settings, seed, keys, data))
    account = account or Account()
    account.options = {name: str(value) for name, value in create_options.items()}
    account.blind, account.n_kept = blind, len(resumed)
    remaining = shuffled_exemplars(units, seed) if blind else units
    remaining = remaining.select(range(len(resumed), len(units)))
    descriptions = run(
        method,
        remaining,
        context,
        batch_size=batch_size,
        progress=progress,
        on_batch=None if log is None else log.append,
        account=account,
    )
    return list(zip(keys, [*resumed, *descriptions], strict=True))


def run(
    method: Method,
    units: Any,
    context: Context | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
    on_batch: Callable[[list[Description]], Any] | None = None,
    account: Account | None = None,
) -> list[Description]:
    """Return a method's descriptions, one per unit, in order.

    The method receives only the columns that its spec allows.

    Args:
        method: from `baselines.get`.
        units: `datasets.Dataset` with the columns of the schema; it may be empty.
        context: what the method requires (default: only a seed).
        batch_size: units described at a time.
        progress: show a progress bar.
        on_batch: called with the descriptions of each batch.
        account: receives the method's spec and cost, and what its descriptions were chosen on.

    Raises:
        InputError: something that the method requires is missing, or the method returned anything
            but one `Description` per unit.
    """
    name, context = method.spec.name, context or Context()
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; at least 1 was expected.")
    _check_requirements(method.spec, context)
    account = account or Account()
    account.method, account.seed = method.spec.to_dict(), context.seed
    visible = units.select_columns(list(method.spec.columns))
    descriptions: list[Description] = []
    starts = range(0, len(units), batch_size)
    for start in progress_bar(starts, description=name, enabled=progress, unit="batch"):
        batch = visible.select(range(start, min(start + batch_size, len(units))))
        keys = unit_keys(batch)
        begun = time.perf_counter()
        try:
            # a method may print, but standard output is for the command's results
            with redirect_stdout(sys.stderr):
                returned = method.describe(batch, context)
        except InputError:
            raise
        except (OSError, SystemExit) as error:
            # A bug of the method. Passed on, they would be taken for a file that the user named
            # wrongly, or for a wish to exit.
            raise RuntimeError(f"'{name}' stopped: {error!r}") from error
        except Exception as error:
            error.add_note(f"while '{name}' described {keys[0]} to {keys[-1]}")
            raise
        descriptions.extend(_check_descriptions(returned, name, keys))
        account.seconds += time.perf_counter() - begun
        account.n_units += len(batch)
        account.tokens_in, account.tokens_out = getattr(method, "tokens", (None, None))
        account.chosen_on = context.chosen_on
        if on_batch is not None:
            on_batch(descriptions[start:])
    return descriptions


def make_context(
    spec: MethodSpec,
    units: Any,
    training: Any | None = None,
    subject: Subject | None = None,
    seed: int = 0,
) -> Context:
    """Return a context with what a method requires, and no more.

    Args:
        spec: spec of the method.
        units: units to describe. If all networks are of the mini world, `subject` is not needed.
        training: units to learn from.
        subject: the described network, with a probe dataset.
        seed: random seed.

    Raises:
        InputError: see `Subject.probe_statistics`.
    """
    statistics = None
    if "activations" in spec.requires:
        if subject is not None:
            statistics = subject.probe_statistics(unit_keys(units))
        else:
            from milannotations.synthetic.unit_plan import NETWORKS

            networks = dict.fromkeys(unit.network for unit in unit_keys(units))
            if set(networks) <= set(NETWORKS):
                from baselines.shared.probe_statistics import mini_probe_statistics

                statistics = mini_probe_statistics(list(networks))
    return Context(
        seed=seed,
        training=training if "training" in spec.requires else None,
        probe_statistics=statistics,
    )


def _check_requirements(spec: MethodSpec, context: Context) -> None:
    if "training" in spec.requires and not context.has_training:
        raise InputError(
            f"'{spec.name}' learns from described units, and there is no split 'train' to learn "
            "from. Give an edition that has one: --training EDITION."
        )
    if "activations" in spec.requires and not context.has_activations:
        raise InputError(
            f"'{spec.name}' needs the network's activations on probe images. Give both: "
            "--subject MODEL --probe PROBE."
        )


def _check_descriptions(returned: Any, method: str, units: Sequence[Unit]) -> list[Description]:
    """Return what a method returned as a list of one description per unit.

    Raises:
        InputError: it is something else.
    """
    if isinstance(returned, str) or not isinstance(returned, Sequence):
        raise InputError(
            f"'{method}' returned {type(returned).__name__}; a list of Description was expected."
        )
    wrong = [i for i, item in enumerate(returned) if not isinstance(item, Description)]
    if wrong:
        raise InputError(
            f"'{method}' returned {type(returned[wrong[0]]).__name__} at index {wrong[0]}; "
            'expected Description.of("text"), Description.failed() or Description.abstained().'
        )
    if len(returned) != len(units):
        raise InputError(
            f"'{method}' returned {len(returned)} descriptions for {len(units)} units "
            f"({units[0]} to {units[-1]}); expected one per unit, in order."
        )
    return list(returned)
