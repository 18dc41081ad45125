"""Edit of a network: ablate the units described as text, and measure what that repairs.

Hernandez et al. 2022, section 7. A classifier is trained on images of which some carry the name of
their class in a corner; shown wrong names, it believes them. Units whose descriptions mention text
are ablated, in the order of the validation accuracy under ablation of each alone.

What 2022 left open, and what is done here:

- *The number of units* was read off the test curve. Here every arm chooses on its own validation
  curve, and may choose none. `edit-plain` takes validation images without text, and the largest
  number that loses at most a point on them: it needs to know nothing of the fault but the words.
  `edit-conflict` takes validation images with wrong names, and the number with the highest accuracy
  on them: selection sees what the test is about, and the record says so.
- *The control* was random units, in no order. Here placebo flags, as many random units of each
  layer, go through the identical order, selection and test. Their mean gain is the control, and
  p = (1 + placebos at least as good) / (1 + placebos).
- Three references stand beside them: all units in the same order; descriptions shuffled within
  layers, which know nothing of units; and oracle flags, units that are active in text more than
  elsewhere, measured on all images.

Replicates are trained networks, and intervals are over them. `specificity` is the gain on images
with wrong names minus the mean loss over classes on images without text.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.ablated_accuracy import AblatedNetwork
from leaderboard.applications.common.task_result import TaskInfo, TaskResult, create_record
from leaderboard.applications.edit.arms import Arm, measure_arms
from leaderboard.applications.edit.config import EditConfig, Protocol
from leaderboard.applications.edit.estimates import (
    combine_networks,
    summarize_flags,
    summarize_network,
)
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format import application_record
from leaderboard.record_format.application_record import Number
from milannotations.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FOOTNOTE = (
    "Gains are on images with a wrong name; every arm chooses its number of ablated units on "
    "validation images. The control is placebo flags: as many random units of each layer, through "
    "the same order, selection and test."
)
CONFLICT_FOOTNOTE = (
    "edit-conflict: units were ordered, and numbers chosen, on images with wrong names."
)


@dataclass(frozen=True)
class Edit(TaskResult):
    """Result of `edit`."""

    def draw(self) -> Figure:
        from leaderboard.applications.edit.figure import draw_edit

        return draw_edit(self.record, self.curves)


def edit(
    predictions: Predictions,
    networks: Sequence[AblatedNetwork],
    config: EditConfig | None = None,
    info: TaskInfo | None = None,
) -> Edit:
    """Ablate flagged units, and measure the accuracy gained against controls.

    Args:
        predictions: descriptions of the units of all networks; only those of rank 1 are used.
        networks: trained networks with images of all roles (`ROLES`).
        config: see `EditConfig`.
        info: what the record says about the run.

    Raises:
        InputError: no network; predictions of units that the networks lack, or none for one of
            them.
    """
    start = time.perf_counter()
    config, info = config or EditConfig(), info or TaskInfo()
    _check_networks(predictions, networks)
    flags = {
        network.name: keyword_flags.flag_units(
            predictions, network.units, config.words, config.matching
        )
        for network in networks
    }
    results: dict[str, Any] = {}
    rows: list[tuple[Any, ...]] = []
    for protocol in config.protocols:
        replicates = []
        for network in networks:
            arms, placebos = measure_arms(network, flags[network.name], protocol, config)
            replicates.append(summarize_network(network, arms, placebos))
            rows += _curve_rows(network, protocol, [*arms, *placebos])
        results[protocol] = {"replicates": replicates, "arms": combine_networks(replicates)}
    results["flags"] = {
        network.name: summarize_flags(network, flags[network.name], config.at)
        for network in networks
    }
    warnings = []  # an edit without flags is a result: it gains nothing
    if not any(words for of_network in flags.values() for words in of_network.values()):
        warnings.append(f"No description contains any of: {', '.join(config.words)}.")
    first = config.protocols[0]
    footnotes = [FOOTNOTE]
    if "edit-conflict" in config.protocols:
        footnotes.append(CONFLICT_FOOTNOTE)
    record = create_record(
        "edit",
        predictions,
        [unit for network in networks for unit in network.units],
        info,
        start=start,
        number=_headline_number(first, results[first]),
        settings=asdict(config),
        networks={
            network.name: {**network.source, "units": network.widths} for network in networks
        },
        images={role: dict(labelled.source) for role, labelled in networks[0].images.items()},
        results=results,
        warnings=warnings,
        footnote=" ".join(footnotes),
    )
    return Edit(record, _as_table(rows), predictions)


def _headline_number(protocol: Protocol, results: Mapping[str, Any]) -> Number:
    """Return the gain of the method beyond placebo flags, over networks."""
    method = results["arms"]["method"]
    above = method["above_control"]
    flagged = sum(replicate["arms"]["method"]["flagged"] for replicate in results["replicates"])
    return Number(
        name=f"accuracy gained beyond placebo flags ({protocol})",
        value=above["mean"],
        low=application_record.to_json_value(above["low"]),
        high=application_record.to_json_value(above["high"]),
        control=0.0,
        p=method["p"],
        n=len(results["replicates"]),
        over="training seeds",
        says=f"Ablating flagged units gains {100 * method['gain']['mean']:.1f} points of accuracy "
        f"on images with wrong names; placebo flags gain {100 * method['control']['mean']:.1f}."
        if flagged
        else "No unit was flagged, so nothing was ablated.",
    )


def _curve_rows(
    network: AblatedNetwork, protocol: Protocol, arms: Sequence[Arm]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of `curves.csv`; test accuracies stand at the chosen count only."""
    draws: Counter[str] = Counter()
    for arm in arms:
        for count, accuracy in zip(arm.counts, arm.validation, strict=True):
            share = count / len(arm.units) if arm.units else 0.0
            is_chosen = count == arm.chosen
            yield (
                protocol, network.name, network.seed, arm.name, draws[arm.name], count, share,
                accuracy, is_chosen,
                arm.accuracy["test-conflict"] if is_chosen else None,
                arm.accuracy["test-clean"] if is_chosen else None,
            )  # fmt: skip
        draws[arm.name] += 1


def _as_table(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    import pandas as pd

    names = [
        "protocol", "network", "seed", "arm", "draw", "deleted", "share", "validation", "chosen",
        "test_conflict", "test_clean",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _check_networks(predictions: Predictions, networks: Sequence[AblatedNetwork]) -> None:
    """Raise InputError unless there are predictions for every network, and for no other unit."""
    if not networks:
        raise InputError("There is no network to edit; expected at least one.")
    keyword_flags.check_units(predictions, [unit for network in networks for unit in network.units])
    missing = [
        network.name for network in networks if not any(map(predictions.first, network.units))
    ]
    if missing:
        raise InputError(
            f"There are no predictions for {', '.join(missing)}. Give the files of all networks."
        )
