"""Files of descriptions, scored on a network that is opened by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.evaluation.score_config import ScoreConfig
    from leaderboard.evaluation.scoring import Score
    from leaderboard.grounding.activations import HeldOutActivations
    from milannotations.exemplars.options import NetworkOptions
    from milannotations.schema import Unit


@dataclass(frozen=True)
class GroundOptions:
    """Held-out images, and the judge of what they show.

    Attributes:
        images: with --ground: held-out images, a folder or broden:DIR, coco:DIR, segments:DIR.
        scorer: with --ground: judge of which images a description holds in: grammar,
            labels[:LEXICON], clip:MODEL or table:FILE (default: labels; of mini, grammar).
        grid: with --ground: regions per side of an image, instead of whole images.
        limit: with --ground: number of images, drawn uniformly (default: all).
        keep_exemplars: with --ground: score on images that are exemplars too; the record says so.
    """

    images: str | None = None
    scorer: str | None = None
    grid: Annotated[int, Ge(1)] | None = None
    limit: Annotated[int, Ge(1)] | None = None
    keep_exemplars: bool = False


def score_files(
    files: Sequence[str],
    model: str,
    options: GroundOptions,
    network: NetworkOptions,
    *,
    data: str | None = None,
    metrics: Sequence[str] | None = None,
    settings: ScoreConfig,
    scope: Mapping[str, Any],
    device: str | None = None,
    cache: str | None = None,
    progress: bool = False,
) -> Score:
    """Return the score of files of descriptions on a network's activations.

    Args:
        files: descriptions of one method; `LAYER=FILE` names the layer of a file.
        model: the described network, as in `milan exemplars`, or `mini`.
        options: held-out images and the judge.
        network: weights and preprocessing.
        data: edition of the units, for their exemplars, annotations and truths.
        metrics: names or sets (default: `headline`).
        settings: seeds, draws, constants.
        scope: `config`, `network`, `layers`, `split`, `allow_missing` and `method`, as in
            `leaderboard.score`.
        device: device of the pass (default: the best available).
        cache: folder that keeps the pass, by content.
        progress: show a progress bar.

    Raises:
        InputError: as `grounding.score` and `Subject.probe_statistics`.
    """
    from leaderboard.evaluation import predictions as prediction_files
    from leaderboard.evaluation import references
    from leaderboard.grounding import score
    from leaderboard.grounding.activations import exemplar_source_ids
    from leaderboard.grounding.scorers import open_scorer

    is_mini = model == "mini"
    if is_mini and (options.images or options.limit or network.weights or network.random):
        raise InputError(
            "--ground mini has scenes of its own: leave out --images, --limit, --weights and "
            "--random."
        )
    scorer = open_scorer(options.scorer or ("grammar" if is_mini else "labels"), cache=cache)
    scope = dict(scope)
    config, layers = scope.get("config"), list(scope.pop("layers", ()))
    known: Any = None if data is None else references.load(data, config=config)
    if known is None and scope.get("network") is None and not is_mini:
        scope["network"] = model.rpartition(":")[2].partition("@")[0]
    predictions = prediction_files.load(
        list(files),
        network=scope.get("network"),
        networks=[] if known is None else known.networks,
        layers=layers,
    )
    units = [unit for unit in predictions.units if not layers or unit.layer in layers]
    exemplars = frozenset() if data is None else exemplar_source_ids(data, config)
    held = open_held_out(
        model,
        units,
        options,
        network,
        without=frozenset() if options.keep_exemplars else exemplars,
        seed=settings.seed,
        device=device,
        cache=cache,
        progress=progress,
    )
    shown = {held.probe.source_id(index) for index in range(len(held.probe))}
    return score(
        predictions,
        held,
        scorer,
        metrics or ["headline"],
        references=known,
        layers=layers,
        settings=settings,
        exemplars_seen=bool(shown & exemplars) if exemplars else None,
        progress=progress,
        **scope,
    )


def open_held_out(
    model: str,
    units: Sequence[Unit],
    options: GroundOptions,
    network: NetworkOptions,
    *,
    without: Collection[str] = frozenset(),
    seed: int = 0,
    device: str | None = None,
    cache: str | None = None,
    progress: bool = False,
) -> HeldOutActivations:
    """Return the activations of units on held-out images.

    Args:
        model: the described network, as in `milan exemplars`, or `mini`.
        units: units whose layers are read.
        options: held-out images; the judge is not read.
        network: weights and preprocessing.
        without: source ids of images to leave out.
        seed: seed of the draw of `options.limit` images.
        device, cache, progress: as in `score_files`.

    Raises:
        InputError: no images; as `Subject.probe_statistics` and `ImageSampling`.
    """
    from leaderboard.grounding import activations

    if model == "mini":
        networks = list(dict.fromkeys(unit.network for unit in units))
        return activations.probe_mini(grid=options.grid, networks=networks)
    images = options.images
    if images is None:
        raise InputError(
            "Held-out images are missing: add --images DIR, or broden:DIR, coco:DIR, segments:DIR."
        )
    from baselines import Subject

    probe = f"images:{images}" if Path(images).is_dir() else images
    subject = Subject(
        model, probe, **asdict(network), device=device, cache=cache, progress=progress
    )
    sampling = activations.ImageSampling(options.limit, seed, frozenset(without))
    return activations.probe_subject(subject, units, sampling, grid=options.grid)
