"""Analysis of the units that a network's accuracy depends on, by the words of their descriptions.

Hernandez et al. 2022, section 5: units are ordered by a score of their descriptions, such as the
number of adjectives, and ablated from one end, 2 % of all units per step up to 20 %. Where accuracy
falls faster than under ablation of random units, units with that score matter more.

Descriptions change with depth, and so does the importance of units. The control is therefore random
units *of the same layers*, as many of each layer at every step. Random units of any layer, the
control of 2022, stand beside it. Units with equal scores are in random order: each of several draws
breaks the ties and draws the controls anew, and accuracies are averaged over draws.

The number of the record is the area between the two curves: the mean over steps of accuracy minus
the control's. Below 0, the ablated units mattered more than others of their layers. For one
network, interval and p are those of one more draw of the control (t with draws - 1 degrees of
freedom); for several networks, such as training seeds, those of the mean over networks. p is
Holm-adjusted over the scores and orders. Images are test images: nothing is chosen on them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard import statistics
from leaderboard.applications.analyze.config import AnalyzeConfig
from leaderboard.applications.analyze.curves import NetworkCurves
from leaderboard.applications.analyze.language import Language
from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.ablated_accuracy import TEST, AblatedNetwork
from leaderboard.applications.common.figures import encode_figure
from leaderboard.applications.common.task_result import TaskInfo, TaskResult, create_record
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format.application_record import Number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FOOTNOTE = (
    "Area: mean over steps of the accuracy minus that under ablation of as many random units of "
    "the same layers. The interval of one network is over random orders: it says nothing about "
    "other networks."
)


@dataclass(frozen=True)
class Analysis(TaskResult):
    """Result of `analyze`.

    Attributes:
        layers: mean score of each layer's units, `layers.csv`.
        classes: accuracy of each class after the last step, `classes.csv`.
    """

    layers: pd.DataFrame
    classes: pd.DataFrame

    def draw(self) -> Figure:
        from leaderboard.applications.analyze.figure import draw_curves

        return draw_curves(self.record, self.curves)

    def files(self) -> dict[str, bytes]:
        from leaderboard.applications.analyze.figure import draw_layers

        return {
            "layers.csv": _encode_csv(self.layers),
            "classes.csv": _encode_csv(self.classes),
            **encode_figure(draw_layers(self.record, self.layers), "layers"),
        }


def analyze(
    predictions: Predictions,
    networks: Sequence[AblatedNetwork],
    language: Language,
    config: AnalyzeConfig | None = None,
    info: TaskInfo | None = None,
) -> Analysis:
    """Measure how accuracy falls as units are ablated in the order of their descriptions' scores.

    Args:
        predictions: descriptions of the units of all networks; only those of rank 1 are used. A
            unit without a description has no score: it is never ablated in the order of a score,
            nor for its control.
        networks: networks with images of role `test`; several are replicates, such as training
            seeds.
        language: counts words.
        config: see `AnalyzeConfig`.
        info: what the record says about the run.

    Raises:
        InputError: predictions of another network, or of units that it lacks; a score that the
            language does not give; no image, or an image of a class that the network lacks.
    """
    start = time.perf_counter()
    config, info = config or AnalyzeConfig(), info or TaskInfo()
    units = [unit for network in networks for unit in network.units]
    keyword_flags.check_units(predictions, units)
    curves = [NetworkCurves(network, predictions, language, config) for network in networks]
    areas = _combine_areas(curves)
    labelled = networks[0].images[TEST]
    record = create_record(
        "analyze",
        predictions,
        units,
        info,
        start=start,
        number=_headline_number(areas, len(networks), config),
        settings=asdict(config),
        networks={
            result.network.name: {
                **result.network.source,
                "units": dict(result.network.widths),
                "accuracy": result.accuracy,
            }
            for result in curves
        },
        images={"test": dict(labelled.source), "count": {"images": len(labelled)}},
        results={
            "language": language.source,
            "areas": areas,
            "networks": {result.network.name: result.areas for result in curves},
            "constant": sorted({name for result in curves for name in result.constant}),
            "undescribed": sum(result.undescribed for result in curves),
        },
        warnings=_list_warnings(curves),
        footnote=FOOTNOTE,
    )
    return Analysis(
        record,
        _as_table([row for result in curves for row in result.curves]),
        predictions,
        _as_table([row for result in curves for row in result.layers]),
        _as_table([row for result in curves for row in result.classes]),
    )


def _combine_areas(curves: Sequence[NetworkCurves]) -> dict[str, dict[str, Any]]:
    """Return each area over all networks, with p Holm-adjusted over scores and orders."""
    from scipy.stats import ttest_1samp

    combined: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for result in curves for name in result.areas):
        areas = [result.areas[name] for result in curves if name in result.areas]
        if len(curves) == 1:  # interval and p over random orders; see `measure_area`
            combined[name] = {key: areas[0][key] for key in ("area", "low", "high", "p")}
        else:
            values = [area["area"] for area in areas]
            low, high = statistics.mean_interval(values)
            # t is undefined for one network, and for networks that are all the same
            varies = len(values) > 1 and np.ptp(values) > 0
            p = float(ttest_1samp(values, 0).pvalue) if varies else float("nan")
            combined[name] = {"area": float(np.mean(values)), "low": low, "high": high, "p": p}
        combined[name]["area_unmatched"] = float(
            np.mean([area["area_unmatched"] for area in areas])
        )
        combined[name]["n"] = len(areas)
    adjusted = statistics.holm([entry["p"] for entry in combined.values()])
    for entry, p in zip(combined.values(), adjusted, strict=True):
        entry["p_holm"] = p
    return combined


def _headline_number(
    areas: Mapping[str, Mapping[str, Any]], count: int, config: AnalyzeConfig
) -> Number:
    """Return the area with the smallest p, or the largest of those."""
    over = "random orders" if count == 1 else "networks"
    replicates = config.draws if count == 1 else count
    tested = {name: area for name, area in areas.items() if np.isfinite(area["p"])}
    if not tested:
        return Number(
            name="area between curve and control",
            value=None, low=None, high=None, control=0.0, p=None,
            n=replicates, over=over,
            says="No score of the descriptions varies among units, so there is no order to ablate "
            "them in."
            if not areas
            else "The controls do not differ from each other, so chance cannot be estimated.",
        )  # fmt: skip
    # The smallest p is a choice among all tests, which Holm's adjustment accounts for.
    name = min(tested, key=lambda key: (tested[key]["p"], -abs(tested[key]["area"])))
    best = tested[name]
    score, order = name.rsplit("/", 1)
    direction = "more" if best["area"] < 0 else "less"
    finding = f"matter {direction} than others of their layers"
    if not best["p_holm"] < 0.05:
        finding = "do not differ significantly from others of their layers"
    end = "most" if order == "decreasing" else "least"
    return Number(
        name=f"area between curve and control, {score} {order}",
        value=best["area"],
        low=best["low"],
        high=best["high"],
        control=0.0,
        p=best["p_holm"],
        n=replicates,
        over=over,
        says=f"Units with the {end} {score} {finding} (area {best['area']:+.4f}, p = "
        f"{best['p']:.3g}, Holm-adjusted {best['p_holm']:.3g}). The score and order were chosen as "
        f"the smallest p of {len(tested)} tests, so the size of the area is overestimated; the "
        "adjusted p is not affected.",
    )


def _list_warnings(curves: Sequence[NetworkCurves]) -> list[str]:
    warnings = []
    if constant := sorted({name for result in curves for name in result.constant}):
        warnings.append(f"Equal for all units, so they give no order: {', '.join(constant)}.")
    if undescribed := sum(result.undescribed for result in curves):
        warnings.append(f"{undescribed:,} units have no description and are never ablated.")
    if any(len(result.reached) < len(result.counts) for result in curves):
        warnings.append("Curves end early: fewer units are described than were to be ablated.")
    at_chance = [result for result in curves if result.accuracy < 2 / len(result.network.classes)]
    if at_chance:
        warnings.append(
            f"{at_chance[0].network.name} is close to chance ({at_chance[0].accuracy:.3f})."
        )
    return warnings


def _as_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows))


def _encode_csv(table: pd.DataFrame) -> bytes:
    text: str = table.to_csv(index=False, float_format="%.6g")
    return text.encode()
