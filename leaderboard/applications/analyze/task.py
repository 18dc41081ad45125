"""Analysis: do descriptions tell which units matter to a network?

Hernandez et al. 2022, section 5: units are ordered by a score of their descriptions, such as the
number of adjectives, and ablated from one end, 2 % of all units a step up to 20 %. Where accuracy
falls faster than without random units, units with that score matter more.

What a unit says goes with its depth, and so does how much it matters: the controls are random
units *of the same layers*, as many of each layer at every step. Random units of any layer, as in
2022, stand beside them. Units of one score are in a random order: each of several draws breaks the
ties and makes the controls anew, and their mean is taken.

The number is the area between the two curves: the mean over steps of accuracy less the control's.
Below 0, the units ablated mattered more than others of their layers. Its interval and p are those
of one more draw like the controls (t with draws - 1 degrees of freedom); over several networks,
such as training seeds, those of the mean over networks. Holm's correction is over the scores and
orders looked at. The pictures are the test pictures: nothing is chosen on them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.applications.analyze.config import AnalyzeConfig
from leaderboard.applications.analyze.language import Language
from leaderboard.applications.common import keyword_flags
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format import application_record as outcome
from leaderboard.record_format.application_record import ApplicationRecord, Number
from milannotations.errors import InputError, did_you_mean
from milannotations.schema import Unit
from milannotations.utils.files import replacing

if TYPE_CHECKING:
    import pandas as pd

Set = dict[str, list[int]]

FOOTNOTE = (
    "Area: mean accuracy less that without as many random units of the same layers, over steps. "
    "Intervals of one network are over random orders: they say nothing of other networks."
)


@dataclass(frozen=True)
class Target:
    """A network whose units are ablated, and the pictures on which it is measured.

    Attributes:
        name: of the network, as the predictions call it.
        model: gives class scores.
        layers: `Layer`s or their names; labels are those of the predictions.
        sizes: units of each layer that take part.
        pictures: a data set for `exemplars.ablation.Ablator`.
        labels: class of each picture (picture,), places among the network's outputs.
        classes: names of its outputs.
        source, images: for the record.
        run: of the passes.
    """

    name: str
    model: Any
    layers: Sequence[Any]
    sizes: Mapping[str, int]
    pictures: Any
    labels: NDArray[np.int64]
    classes: Sequence[str]
    source: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    run: Any = None

    @property
    def units(self) -> list[Unit]:
        """Units that take part, in order."""
        return [
            Unit(self.name, layer, i) for layer, count in self.sizes.items() for i in range(count)
        ]


class Accuracies:
    """Accuracies of a network without sets of units, each measured once.

    Methods share it: controls, and sets that several orders begin with, are the same for all.

    Args:
        target: the network.
        how: units are ablated.
        path: a JSON file of the same network and pictures that keeps them; None keeps none.
    """

    def __init__(self, target: Target, how: str = "zero", path: Path | None = None) -> None:
        from milannotations.exemplars.hooks.ablation import Ablator

        self.target, self.how, self.path = target, how, path
        self._ablator = Ablator(
            target.model, target.pictures, list(target.layers), how=how, run=target.run
        )
        self._known: dict[str, tuple[float, list[float]]] = {}
        if path is not None and path.is_file():
            self._known = json.loads(path.read_text())

    def __call__(self, sets: Sequence[Set]) -> NDArray[np.float64]:
        """Return accuracies (set,)."""
        known = self._of(sets)
        return np.array([known[_key(each)][0] for each in sets])

    def by_class(self, sets: Sequence[Set]) -> NDArray[np.float64]:
        """Return accuracies of each class (set, class); nan where there is no picture of it."""
        known = self._of(sets)
        return np.array([known[_key(each)][1] for each in sets])

    def _of(self, sets: Sequence[Set]) -> dict[str, tuple[float, list[float]]]:
        from milannotations.exemplars.hooks.ablation import accuracy, accuracy_by_class

        new = {key: each for each in sets if (key := _key(each)) not in self._known}
        if new:
            answers = self._ablator.predictions(list(new.values()))
            whole = accuracy(answers, self.target.labels)
            parts = accuracy_by_class(answers, self.target.labels, len(self.target.classes))
            made = zip(whole.tolist(), parts.tolist(), strict=True)
            self._known |= dict(zip(new, made, strict=True))
            if self.path is not None:
                with replacing(self.path) as temporary:
                    temporary.write_text(json.dumps(self._known))
        return self._known


@dataclass(frozen=True)
class Analysis:
    """An analysis that was made: outcome, curves, scores by layer, accuracies by class."""

    outcome: ApplicationRecord
    curves: pd.DataFrame
    layers: pd.DataFrame
    classes: pd.DataFrame
    predictions: Predictions

    def save(self, folder: str | os.PathLike[str]) -> ApplicationRecord:
        """Write the outcome's folder; see `outcome.save`."""
        from leaderboard.applications.analyze.figure import draw, draw_layers
        from leaderboard.applications.common.figures import encode_figure

        return outcome.save(
            folder,
            self.outcome,
            curves=self.curves,
            predictions=self.predictions,
            files={
                **encode_figure(draw(self.outcome, self.curves)),
                "layers.csv": _csv(self.layers),
                "classes.csv": _csv(self.classes),
                **encode_figure(draw_layers(self.outcome, self.layers), "layers"),
            },
        )


def analyze(
    predictions: Predictions,
    targets: Sequence[Target],
    language: Language,
    settings: AnalyzeConfig | None = None,
    *,
    measured: Mapping[str, Accuracies] | None = None,
    method: str = "descriptions",
    data: str = "",
    asked: Mapping[str, Any] | None = None,
    synthetic: bool = False,
    seconds: Mapping[str, float] | None = None,
) -> Analysis:
    """Return how accuracy falls as units are ablated in the order of their descriptions' scores.

    Args:
        predictions: of the units of all targets; rank 1 is read. Units without a description
            have no score: they are never ablated in an order of scores, nor for its control.
        targets: networks; several are replicates, such as training seeds.
        language: what counts words.
        settings: see `AnalyzeConfig`.
        measured: accuracies by network that may be known already, to be added to.
        method: name, or name@version, of what described the units.
        data: what the networks are of, for the record.
        asked: for the record.
        synthetic: the networks are of the mini world.
        seconds: what came before took, for the record.

    Raises:
        InputError: predictions for another network, or of units that it does not have; a score
            that the language does not give; no picture, or classes that the network lacks.
    """
    began = time.perf_counter()
    settings = settings or AnalyzeConfig()
    for target in targets:
        _check_labels(target)
    keyword_flags.check_units(predictions, [unit for target in targets for unit in target.units])
    curves, layers, classes, runs = [], [], [], []
    for target in targets:
        accuracies = (measured or {}).get(target.name) or Accuracies(target, settings.how)
        run = _Run(target, predictions, language, settings, accuracies)
        curves += run.curves
        layers += run.layers
        classes += run.classes
        runs.append(run)
    areas = _combined(runs)
    made = outcome.create(
        "analyze",
        method=method,
        data=data,
        number=_number(areas, len(targets), settings),
        asked=asked or {},
        settings=asdict(settings),
        networks={
            run.target.name: {
                **run.target.source,
                "units": dict(run.target.sizes),
                "accuracy": run.whole,
            }
            for run in runs
        },
        images={"test": dict(targets[0].images), "count": {"images": len(targets[0].labels)}},
        results={
            "language": language.source,
            "areas": areas,
            "networks": {run.target.name: run.areas for run in runs},
            "constant": sorted({name for run in runs for name in run.constant}),
            "undescribed": sum(run.undescribed for run in runs),
        },
        seconds={**(seconds or {}), "analyze": time.perf_counter() - began},
        predictions=outcome.Described(
            **predictions.counts([unit for target in targets for unit in target.units])
        ),
        synthetic=synthetic,
        warnings=_warnings(runs, areas),
        footnote=FOOTNOTE,
    )
    return Analysis(made, _frame(curves), _frame(layers), _frame(classes), predictions)


class _Run:
    """One network: its scores, its curves, and the areas between them."""

    def __init__(
        self,
        target: Target,
        predictions: Predictions,
        language: Language,
        settings: AnalyzeConfig,
        accuracies: Accuracies,
    ) -> None:
        self.target, self.settings, self.accuracies = target, settings, accuracies
        rows = {unit: predictions.first(unit) for unit in target.units}
        said = {unit: row.description for unit, row in rows.items() if row and row.description}
        self.undescribed = len(rows) - len(said)
        self.units = list(said)
        found = language.scores(list(said.values()), settings.similar_to) if said else {}
        self.scores = _chosen(found, settings.scores)
        self.constant = [name for name, v in self.scores.items() if np.ptp(v) == 0]
        self.whole = float(accuracies([{}])[0])
        # after each step: of all units, not of those described, so that methods compare
        self.counts = [round(share * len(rows)) for share in settings.shares]
        if said and self.counts[0] < 1:
            raise InputError(
                f"{settings.step:.3g} of {len(rows)} units is none; take larger --step."
            )
        self.reached = [count for count in self.counts if count <= len(said)]
        self.curves: list[dict[str, Any]] = []
        self.layers = self._by_layer()
        self.classes: list[dict[str, Any]] = []
        self.areas: dict[str, dict[str, Any]] = {}
        self._measure()

    def _measure(self) -> None:
        settings, varying = self.settings, [n for n in self.scores if n not in self.constant]
        plans = {
            (name, order): [self._plan(name, order, draw) for draw in range(settings.draws)]
            for name in varying
            for order in settings.orders
        }
        free = [self._free(draw) for draw in range(settings.draws)]
        every = [
            step
            for pairs in plans.values()
            for sets, controls in pairs
            for step in (*sets, *controls)
        ]
        self.accuracies([{}, *every, *(step for sets in free for step in sets)])  # all in one pass
        unmatched = np.array([self.accuracies(sets) for sets in free])
        self._curve("random", "any layer", unmatched, "control")
        self._class("none", "", [{}])
        for (name, order), pairs in plans.items():
            own = np.array([self.accuracies(sets) for sets, _ in pairs])
            matched = np.array([self.accuracies(controls) for _, controls in pairs])
            self._curve(name, order, own, "score")
            self._curve(name, order, matched, "control")
            self._class(name, order, [sets[-1] for sets, _ in pairs if sets])
            self.areas[f"{name}/{order}"] = _area(own, matched, unmatched)

    def _plan(self, name: str, order: str, draw: int) -> tuple[list[Set], list[Set]]:
        """Return the sets of units after each step, and as many others of the same layers."""
        seed = (self.settings.seed, draw)
        ties = np.random.default_rng([*seed, 0]).permutation(len(self.units))
        values = self.scores[name] if order == "increasing" else -self.scores[name]
        ranked = np.lexsort((ties, values))
        others = np.random.default_rng([*seed, 1]).permutation(len(self.units))
        pools: dict[str, list[int]] = {}
        for i in others:
            pools.setdefault(self.units[i].layer, []).append(self.units[i].unit)
        sets = [self._set(ranked[:count]) for count in self.reached]
        controls = [{label: pools[label][: len(own)] for label, own in s.items()} for s in sets]
        return sets, controls

    def _free(self, draw: int) -> list[Set]:
        """Return sets of random units of any layer, as in 2022."""
        order = np.random.default_rng([self.settings.seed, draw, 2]).permutation(len(self.units))
        return [self._set(order[:count]) for count in self.reached]

    def _set(self, places: Sequence[int] | NDArray[np.intp]) -> Set:
        found: Set = {}
        for i in places:
            found.setdefault(self.units[i].layer, []).append(self.units[i].unit)
        return found

    # ---- rows of tables

    def _curve(self, name: str, order: str, values: NDArray[np.float64], kind: str) -> None:
        common = {"network": self.target.name, "score": name, "order": order, "curve": kind}
        self.curves.append(
            {**common, "ablated": 0, "share": 0.0, "accuracy": self.whole,
             "low": self.whole, "high": self.whole}
        )  # fmt: skip
        for step, count in enumerate(self.reached):
            own = values[:, step]
            self.curves.append(
                {**common, "ablated": count, "share": self.settings.shares[step],
                 "accuracy": own.mean(), "low": own.min(), "high": own.max()}
            )  # fmt: skip

    def _class(self, name: str, order: str, sets: Sequence[Set]) -> None:
        """Add the accuracy of each class at the last step."""
        if not sets:
            return
        means = self.accuracies.by_class(sets).mean(0)
        ablated = sum(map(len, sets[0].values()))
        for place in np.flatnonzero(~np.isnan(means)).tolist():
            self.classes.append(
                {"network": self.target.name, "score": name, "order": order, "ablated": ablated,
                 "class": self.target.classes[place], "accuracy": means[place]}
            )  # fmt: skip

    def _by_layer(self) -> list[dict[str, Any]]:
        """Return the mean score of each layer's units, and how many have any, with intervals."""
        rows = []
        for name, values in self.scores.items():
            for layer in self.target.sizes:
                own = values[[unit.layer == layer for unit in self.units]]
                low, high = statistics.mean_interval(own)
                rows.append(
                    {"network": self.target.name, "score": name, "layer": layer, "units": len(own),
                     "mean": own.mean() if len(own) else np.nan, "low": low, "high": high,
                     "any": (own > 0).mean() if len(own) else np.nan}
                )  # fmt: skip
        return rows


def _chosen(
    found: Mapping[str, NDArray[np.float64]], wanted: Sequence[str] | None
) -> dict[str, NDArray[np.float64]]:
    if wanted is None or not found:
        return dict(found)
    for name in wanted:
        if name not in found:
            raise InputError(
                f"There is no score '{name}' (scores: {', '.join(found)})."
                f"{did_you_mean(name, found)} word-difference and similarity need word vectors."
            )
    return {name: found[name] for name in wanted}


def _area(
    own: NDArray[np.float64], matched: NDArray[np.float64], unmatched: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the area between a score's curve and its controls', and what the latter spread by.

    Args:
        own, matched, unmatched: accuracies (draw, step).
    """
    from scipy.stats import t

    level, controls = own.mean(), matched.mean(1)
    area, spread = level - controls.mean(), controls.std(ddof=1) * np.sqrt(1 + 1 / len(controls))
    free = len(controls) - 1
    half = t.ppf(0.975, free) * spread
    # controls that are all the same, as on a handful of pictures, tell nothing of chance
    p = float(2 * t.sf(abs(area) / spread, free)) if spread > 1e-12 else float("nan")
    return {
        "area": float(area),
        "low": float(area - half),
        "high": float(area + half),
        "p": p,
        "accuracy": float(level),
        "control": float(controls.mean()),
        "controls": controls.tolist(),
        "area_unmatched": float(level - unmatched.mean()),
    }


def _combined(runs: Sequence[_Run]) -> dict[str, dict[str, Any]]:
    """Return areas over all networks, with Holm's p over scores and orders."""
    from scipy.stats import ttest_1samp

    names = list(dict.fromkeys(name for run in runs for name in run.areas))
    made: dict[str, dict[str, Any]] = {}
    for name in names:
        own = [run.areas[name] for run in runs if name in run.areas]
        if len(runs) == 1:
            made[name] = {key: own[0][key] for key in ("area", "low", "high", "p")}
        else:
            values = [each["area"] for each in own]
            low, high = statistics.mean_interval(values)
            known = len(values) > 1 and np.ptp(values) > 0
            p = float(ttest_1samp(values, 0).pvalue) if known else float("nan")
            made[name] = {"area": float(np.mean(values)), "low": low, "high": high, "p": p}
        made[name]["area_unmatched"] = float(np.mean([each["area_unmatched"] for each in own]))
        made[name]["n"] = len(own)
    for entry, p in zip(
        made.values(), statistics.holm([entry["p"] for entry in made.values()]), strict=True
    ):
        entry["p_holm"] = p
    return made


def _number(areas: Mapping[str, Mapping[str, Any]], n: int, settings: AnalyzeConfig) -> Number:
    """Return the area that differs most from the controls', by p and then by size."""
    over = "random orders" if n == 1 else "networks"
    known = {name: each for name, each in areas.items() if np.isfinite(each["p"])}
    if not known:
        return Number(
            name="area between curve and control",
            value=None, low=None, high=None, control=0.0, p=None,
            n=settings.draws if n == 1 else n, over=over,
            says="No score of the descriptions varies among units: there is nothing to order by."
            if not areas
            else "Controls do not differ from one another: what chance does cannot be told.",
        )  # fmt: skip
    name = min(known, key=lambda key: (known[key]["p"], -abs(known[key]["area"])))
    best = known[name]
    score, order = name.rsplit("/", 1)
    more = "more" if best["area"] < 0 else "less"
    matters = f"matter {more} than others of their layers"
    if not best["p_holm"] < 0.05:
        matters = "cannot be told from others of their layers"
    end = "most" if order == "decreasing" else "least"
    return Number(
        name=f"area between curve and control, {score} {order}",
        value=best["area"],
        low=best["low"],
        high=best["high"],
        control=0.0,
        p=best["p_holm"],
        n=settings.draws if n == 1 else n,
        over=over,
        says=f"Units with the {end} {score} {matters} (area {best['area']:+.4f}, p = "
        f"{best['p']:.3g}, Holm over {len(known)} {best['p_holm']:.3g}). It is the clearest of "
        "them: its size is flattered, its p is not.",
    )


def _warnings(runs: Sequence[_Run], areas: Mapping[str, Any]) -> list[str]:
    made = []
    if constant := sorted({name for run in runs for name in run.constant}):
        made.append(f"The same for all units, so that there is no order: {', '.join(constant)}.")
    if undescribed := sum(run.undescribed for run in runs):
        made.append(f"{undescribed:,} units have no description and are never ablated.")
    if any(len(run.reached) < len(run.counts) for run in runs):
        made.append("Curves end early: there are fewer described units than were to be ablated.")
    chance = [run for run in runs if run.whole < 2 / len(run.target.classes)]
    if chance:
        made.append(f"{chance[0].target.name} hardly tells classes ({chance[0].whole:.3f}).")
    return made


def _check_labels(target: Target) -> None:
    count = len(target.classes)
    if len(target.labels) != len(target.pictures):
        raise InputError(f"{len(target.labels)} labels for {len(target.pictures)} pictures.")
    if len(target.labels) and not 0 <= target.labels.min() <= target.labels.max() < count:
        raise InputError(
            f"A picture is of class {int(target.labels.max())}; {target.name} tells {count} "
            f"classes, 0 to {count - 1}. Show it classes that it was trained on."
        )


def _key(units: Set) -> str:
    """Return a set of units as text: layers that have any, and their units, ascending."""
    return " ".join(
        f"{label}:{','.join(map(str, sorted(map(int, own))))}"
        for label, own in sorted(units.items())
        if len(own)
    )


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows))


def _csv(frame: pd.DataFrame) -> bytes:
    made: str = frame.to_csv(index=False, float_format="%.6g")
    return made.encode()
