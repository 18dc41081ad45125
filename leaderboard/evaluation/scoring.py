"""Score descriptions against what people wrote, beside everything that keeps a score honest.

One pass per metric: the method's answers, the floors and one person are put
through the same functions, on the same units, against the same references.
Definitions: leaderboard/README.md, "Honest scores".
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.framework import provenance as account
from leaderboard import statistics
from leaderboard.console import score_table
from leaderboard.evaluation import predictions as prediction_files
from leaderboard.evaluation import references as reference_sources
from leaderboard.evaluation.estimates import FLOOR, METHOD, PERSON, Summary
from leaderboard.evaluation.evaluator import Judge, Outcome
from leaderboard.evaluation.predictions import Prediction, Predictions
from leaderboard.evaluation.reference_views import Answers, Mask
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics import ALLREF, Metric, build, expand, left_out
from leaderboard.metrics.text import normalise
from leaderboard.record_format import score_record
from milannotations import catalog
from milannotations.errors import InputError, some
from milannotations.schema import Unit
from milannotations.utils.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard.grounding.scoring import Ground


def score(
    predictions: Any,
    references: Any,
    metrics: str | Sequence[str] | Mapping[str, Metric] = ("default",),
    *,
    network: str | None = None,
    config: str | None = None,
    layers: str | Sequence[str] = (),
    split: str | None = None,
    allow_missing: bool = False,
    unlisted: bool = False,
    method: str | None = None,
    settings: ScoreConfig | None = None,
    beside: Mapping[str, Predictions] | None = None,
    accounts: Sequence[Mapping[str, Any]] | None = None,
    ground: Ground | None = None,
    progress: bool = False,
) -> Score:
    """Score one method's descriptions against people's, beside floors and one person.

    Args:
        predictions: `Predictions`, a DataFrame, or one path or several
            (`layer1=path` names the layer of a file that has none).
        references: folder of an edition, an `annotations.csv`, `References`, or a
            `datasets.DatasetDict`.
        metrics: names or sets of names (`milan list metrics`), or what `metrics.build` made of
            them, so that several scores share what a text model encoded.
        network: where the files do not say; may be left out if there is only one.
        config: config of the edition; may be left out if there is only one.
        layers: score these alone; a single one is also the layer of files without.
        split: score this HF split alone (`test`, `train+test`); retrieval still
            has the units of all splits as candidates.
        allow_missing: units without a row count as failures instead of an error.
        unlisted: accept layers and units that the published network does not have.
        method: name for tables and the record, or name@version (default: name of
            the file, or what the names of several begin with; the version is the accounts').
        settings: seeds, draws, constants.
        beside: other answers, by name, that are scored as the floors are: `blind`, the
            method's own of units whose exemplars were shuffled.
        accounts: how the answers were made (default: those that stand beside the files).
        ground: what the units did on held-out pictures, where metrics are held against that
            (`leaderboard.grounding.scoring`).
        progress: show a progress bar.

    Returns:
        A `Score`: `.to_pandas()` is a table, `.save(folder)` writes a record.

    Raises:
        InputError: anything that the caller can mend, with what to do.

    Example:
        >>> known = reference_sources.of("mini")
        >>> said = prediction_files.of_texts(known.units, ["red things"] * len(known.units))
        >>> score(said, known, ["concept-f1"]).record.scores["concept-f1"].lift  # of a constant
        0.0
    """
    started = time.perf_counter()
    settings = settings or ScoreConfig()
    layers = [layers] if isinstance(layers, str) else list(layers)
    if network is None and _is_csv(references):
        network = _network_named(predictions)
    asked = [metrics] if isinstance(metrics, str) else list(metrics)
    built = dict(metrics) if isinstance(metrics, Mapping) else build(expand(asked))
    known = reference_sources.of(references, config=config, network=network, unlisted=unlisted)
    settings = settings.resolved(known.synthetic)
    _check_truths(built, known)
    said = read_predictions(predictions, known, network, layers)
    scope = _scope(known, layers, split, None if ground is None else ground.covers(known.units))
    _check(said, known, scope, allow_missing, unlisted)
    first = [said.first(unit) for unit in known.units]
    answers = _answers(first)
    senses = [
        None if text is None else "\n".join(map(normalise, said.senses(unit)))
        for unit, text in zip(known.units, answers, strict=True)
    ]
    answered = scope & np.array([text is not None for text in answers])
    if not any(row is not None and wanted for row, wanted in zip(first, scope, strict=True)):
        raise InputError("Nothing to score: the predictions say nothing of any unit in question.")
    judge = Judge(known, scope, answered, settings)
    baseline = (
        floors(known, settings.constants or ())
        if ground is None
        else ground.floors(known, answers, settings.constants or ())
    )
    for name, others in (beside or {}).items():
        baseline[name] = _answers([others.first(unit) for unit in known.units])
    if accounts is None:
        found = (account.beside(path, digest) for path, digest in said.sources)
        accounts = [each for each in found if each is not None]
    weights = np.zeros((settings.draws, len(known.units)))
    weights[:, scope] = statistics.bootstrap_weights(
        int(scope.sum()), settings.draws, settings.seed
    )
    outcomes: dict[str, dict[str, Outcome]] = {}
    seconds: dict[str, float] = {}
    fitted: set[int] = set()
    bar = progress_bar(built.items(), len(built), "metrics", progress, unit="metric")
    for name, metric in bar:
        begun = time.perf_counter()
        if metric.fits_on == "config" and id(metric) not in fitted:
            metric.fit(known.corpus)
            fitted.add(id(metric))
        allref = name.endswith(ALLREF)
        read = answers if metric.spec.reads == "first" else senses
        systems: dict[str, Answers] = {METHOD: read, **baseline}
        made = {system: judge.judge(metric, text, allref) for system, text in systems.items()}
        person = None if allref else judge.person(metric)
        outcomes[name] = made if person is None else {**made, PERSON: person}
        seconds[name] = time.perf_counter() - begun
    summary = Summary(built, outcomes, known, answers, scope, answered, weights, settings)
    record = score_record.assemble(
        summary=summary,
        predictions=said,
        first=first,
        method=method or _versioned(_method_name(said), accounts),
        asked={
            "references": None if known.source is None else Path(known.source).name,
            "metrics": asked,
            "network": network,
            "config": config,
            "layers": layers,
            "split": split,
            "allow_missing": allow_missing,
        },
        accounts=accounts,
        left_out=left_out(asked),
        seconds={**seconds, "total": time.perf_counter() - started},
        grounding=None if ground is None else ground.entry(known, answers, scope, accounts, built),
    )
    return Score(record, summary, said)


@dataclass
class Score:
    """What came out of `score`: a record, values of units, and the predictions."""

    record: score_record.Record
    summary: Summary
    predictions: Predictions

    def to_pandas(self) -> pd.DataFrame:
        """Return the table: a metric a row; the score, its floors and one person beside it."""
        return score_table.frame(self.record)

    @property
    def units(self) -> pd.DataFrame:
        """Values and lifts, a DataFrame of network, layer, unit, metric, value, lift."""
        return self.summary.units()

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the record's folder, whole or not at all; return its path.

        Raises:
            InputError: the folder holds another record, or no record (see `records.save`).
        """
        self.record = score_record.save(
            folder, self.record, self.units, self.predictions, overwrite=overwrite
        )
        return Path(folder)

    def render(self, width: int = 200) -> Any:
        """Return the table as something `rich` prints on a terminal of that width."""
        return score_table.render(self.record, width)

    def __str__(self) -> str:
        return score_table.text(self.record)


def _answers(rows: Sequence[Prediction | None]) -> list[str | None]:
    return [
        normalise(row.description) if row is not None and row.status == "ok" else None
        for row in rows
    ]


def floors(
    known: References,
    constants: Sequence[str],
    texts: Sequence[Sequence[str]] | None = None,
    fits: Callable[[str], bool] = lambda text: True,
) -> dict[str, Answers]:
    """Return the answers of the floors, one a unit: constants and each layer's commonest.

    Args:
        known: the units.
        constants: strings that are floors, too.
        texts: of each unit, among which the commonest is looked for (default: people's).
        fits: which of them may be the commonest.
    """
    texts = known.texts if texts is None else texts
    every = [text for own in texts for text in own]
    made: dict[str, Answers] = {FLOOR: [_commonest(every, fits)] * len(known.units)}
    for text in constants:
        made[f"constant: {text}"] = [normalise(text)] * len(known.units)
    commonest: list[str | None] = [None] * len(known.units)
    for members in known.layers.values():
        found = _commonest((text for i in members for text in texts[i]), fits)
        for i in members:
            commonest[i] = found
    made["most-common-of-layer"] = commonest
    return made


def _commonest(texts: Iterable[str], fits: Callable[[str], bool] = lambda text: True) -> str | None:
    """Return the commonest text that fits; of several the shortest, then first in the alphabet."""
    counts = Counter(texts)
    ordered = sorted(counts, key=lambda text: (-counts[text], len(text), text))
    return next(filter(fits, ordered), None)


def read_predictions(
    predictions: Any, known: References | None, network: str | None, layers: Sequence[str]
) -> Predictions:
    """Return predictions of whatever holds them; see `score`.

    Args:
        predictions: as of `score`.
        known: the units, where they say of which network files are.
        network: of files that do not say.
        layers: that are asked for; a single one is that of files that do not say.

    Raises:
        InputError: something else, or a file of another layer.
    """
    if isinstance(predictions, Predictions):
        return predictions
    if network is None and known is not None and len(known.networks) == 1:
        network = known.networks[0]
    layer = layers[0] if len(layers) == 1 else None
    if hasattr(predictions, "to_dict") and hasattr(predictions, "columns"):
        return prediction_files.of_frame(predictions, network=network, layer=layer)
    files = predictions if isinstance(predictions, list | tuple) else [predictions]
    if not all(isinstance(file, str | os.PathLike) for file in files):
        raise InputError(
            f"Predictions were given as {type(predictions).__name__}; expected a path, a list of "
            "paths, a DataFrame or Predictions."
        )
    for file in files:
        named = prediction_files.split_layer(os.fspath(file))[0]
        if named and layers and named not in layers:
            raise InputError(f"{file} is of layer '{named}', which is not asked for: --layer.")
    return prediction_files.read(*files, network=network, layer=layer)


def _is_csv(references: Any) -> bool:
    return isinstance(references, str | os.PathLike) and Path(references).is_file()


def _network_named(predictions: Any) -> str | None:
    """Return the network that the predictions name, where they name just one."""
    try:
        said = read_predictions(predictions, None, None, [])
    except InputError:  # it is not in the files; what is wrong else is said later
        return None
    networks = {unit.network for unit in said.units}
    return networks.pop() if len(networks) == 1 else None


def _scope(
    known: References, layers: Sequence[str], split: str | None, covered: Mask | None = None
) -> Mask:
    """Return which units are to be described: of the split and layers, with references.

    Units that were `covered`, by a pass over pictures, need no words of people's.
    """
    scope = np.array([bool(texts) for texts in known.texts]) | known.known
    if covered is not None:
        scope = covered
    if layers:
        present = list(dict.fromkeys(unit.layer for unit in known.units))
        for layer in layers:
            if layer not in present:
                raise InputError(
                    f"Layer '{layer}' is not in {known.config} (layers: {', '.join(present)})."
                )
        scope &= np.array([unit.layer in layers for unit in known.units])
    if split is not None:
        wanted = split.split("+")
        for part in wanted:
            if part not in known.splits:
                raise InputError(
                    f"No split '{part}' (splits: {', '.join(sorted(set(known.splits)))})."
                )
        scope &= np.array([side in wanted for side in known.splits])
    if not scope.any():
        raise InputError("Nothing to score: no unit with a description is left to describe.")
    return scope


def _check_truths(built: Mapping[str, Metric], known: References) -> None:
    """Raise InputError for a metric held against truths where there are none."""
    free = ("descriptions", "activations")
    needing = [name for name, metric in built.items() if metric.spec.against not in free]
    if needing and not (known.synthetic and known.known.any()):
        raise InputError(
            f"{needing[0]} holds answers against what is known of a unit, and the units of "
            f"{known.config} have no known truth; such scores are for synthetic editions. "
            "Use --metrics default."
        )


def _check(
    said: Predictions, known: References, scope: Mask, allow_missing: bool, unlisted: bool
) -> None:
    """Raise InputError for units that are not in the references, or not described."""
    by_network: dict[str, list[Unit]] = {}
    for unit in said.units:
        by_network.setdefault(unit.network, []).append(unit)
    for network, units in by_network.items():
        if network not in known.networks:
            raise InputError(
                f"The predictions are of network '{network}'; the references are of "
                f"{', '.join(known.networks)}."
            )
        catalog.check_units(network, units, unlisted=unlisted)
    unknown = [unit for unit in said.units if unit not in known.index]
    if unknown:
        raise InputError(
            f"Not in the references: {some(unknown)}. Every described unit must be one of theirs."
        )
    expected = [unit for unit, wanted in zip(known.units, scope, strict=True) if wanted]
    missing = [unit for unit in expected if said.first(unit) is None]
    if missing and not allow_missing:
        raise InputError(
            f"{_method_name(said)} has rows for {len(expected) - len(missing):,} of "
            f"{len(expected):,} units; missing {some(missing)}. "
            "Use --allow-missing (allow_missing=True) to count them as failures."
        )


def _method_name(said: Predictions) -> str:
    """Return the name of the file, or what the names of several begin with."""
    stems = [Path(path).stem for path, _ in said.sources]
    begin = os.path.commonprefix(stems).rstrip("-_. ")  # noqa: RUF071 - letters are meant
    return begin or (stems[0] if stems else "predictions")


def _versioned(name: str, accounts: Sequence[Mapping[str, Any]]) -> str:
    """Return name@version, of a method whose accounts say which version of it answered."""
    methods = [account.get("method") for account in accounts]
    own = [each for each in methods if isinstance(each, dict) and each.get("name") == name]
    versions = {str(each.get("version") or "") for each in own}
    return f"{name}@{versions.pop()}" if len(versions) == 1 and "" not in versions else name
