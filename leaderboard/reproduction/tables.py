"""Tables 2 and 3 of Hernandez et al. 2022, trained and scored anew by the official splits.

Table 2: a model learns from all networks but one, and describes that one. Table 3: it learns
from some units of a network and describes others, or learns from one kind of network and
describes another. Each training (a fold and a seed) leaves its answers in a file:

    OUT/
      features.npy                    of all units, computed once
      answers/<fold>-seed<n>.json     greedy, and the beam with both scores of every candidate
      table2.json, table2.csv         what was found; a unit's values, a row each

Greedy is the paper's p(d | E), which had no beam; beam without mutual information stands beside
it, so that what mutual information adds is seen apart from what the beam does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.shared.text import medoid
from leaderboard import statistics
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.scoring import score
from leaderboard.metrics import build
from leaderboard.record_format.score_record import HUMAN
from leaderboard.reproduction.training import LAMBDAS, best_of, choose_lambda
from milannotations import catalog, splits
from milannotations.editions import loading
from milannotations.editions.configs import edition_name, list_configs
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.files import replacing

if TYPE_CHECKING:
    import pandas as pd

    from milan.features import Features

PAPER = {
    "table2": {
        "alexnet-imagenet": {"greedy": 0.34, "pmi": 0.38},
        "alexnet-places365": {"greedy": 0.31, "pmi": 0.37},
        "resnet152-imagenet": {"greedy": 0.27, "pmi": 0.35},
        "resnet152-places365": {"greedy": 0.30, "pmi": 0.31},
    },
    "table3": {
        "within-network/alexnet-imagenet": {"pmi": 0.39},
        "within-network/alexnet-places365": {"pmi": 0.47},
        "within-network/resnet152-imagenet": {"pmi": 0.35},
        "within-network/resnet152-places365": {"pmi": 0.28},
        "within-network/biggan-imagenet": {"pmi": 0.49},
        "within-network/biggan-places365": {"pmi": 0.52},
        "across-network/alexnet-to-resnet152": {"pmi": 0.28},
        "across-network/resnet152-to-alexnet": {"pmi": 0.35},
        "across-arch/base-to-dino_vits8-imagenet": {"pmi": 0.34},
        "across-dataset/imagenet-to-places365": {"pmi": 0.30},
        "across-dataset/places365-to-imagenet": {"pmi": 0.33},
        "across-task/cls-to-gen": {"pmi": 0.34},
        "across-task/gen-to-cls": {"pmi": 0.27},
    },
}
"""BERTScore F (idf, rescaled, best of three references), as printed: on other data than `mini`."""

METHODS = ("greedy", "beam", "pmi", "nearest")
SYNTHETIC = ("concept-f1", "identification", "rouge-l")
PEOPLE = ("rouge-l", "retrieval-tfidf-auc")
"""Metrics that are shown; the first is the one by which lambda is chosen and methods differ."""


@dataclass(frozen=True)
class Fold:
    """Units to learn from, held out and tested, as rows of the edition."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class TrainingJob:
    """A training: what a process of its own needs to know."""

    fold: Fold
    seed: int
    out: Path
    texts: list[list[str]]
    encoder: dict[str, Any]
    sizes: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.out / "answers" / f"{self.fold.name.replace('/', '-')}-seed{self.seed}.json"


@dataclass(frozen=True)
class ReproducedTable:
    """What came out.

    Attributes:
        name: `table2` or `table3`.
        rows: per fold and method: mean over units and seeds, above shuffle, spread over seeds.
        differences: of `pmi` from other methods, paired by unit, with intervals.
        lam: the lambda that was chosen.
        made: of what, how.
    """

    name: str
    rows: pd.DataFrame
    differences: pd.DataFrame
    lam: float
    made: dict[str, Any]


def reproduce(
    table: str,
    data: str = "mini",
    out: str = "reproduced",
    *,
    seeds: Sequence[int] = (0,),
    encoder: Mapping[str, Any] | None = None,
    sizes: str | None = None,
    settings: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    draws: int = 1000,
    tell: Callable[[str], Any] = lambda line: None,
) -> ReproducedTable:
    """Train and score a table of the paper on an edition.

    What was trained stays in `out`, and is not trained again.

    Args:
        table: `table2` or `table3`.
        data: edition: `mini`, the published networks, or any other of several networks.
        out: folder of features, answers and the table.
        seeds: of training; several give spreads.
        encoder: arguments of `milan.encoder.build`; None is the mini world's.
        sizes, settings: see `leaderboard.reproduction.training.train`.
        metrics: names; the first is the headline (default: `SYNTHETIC` or `PEOPLE`).
        draws: bootstrap resamples over units.
        tell: called with a line of progress.

    Raises:
        InputError: no such table or edition; networks that the table needs are missing.
    """
    from milan import encoder as encoders
    from milan.config import DEFAULTS

    if table not in PAPER:
        raise InputError(f"No table '{table}' (tables: {', '.join(PAPER)}).")
    place, chosen = Path(out), dict(encoder or {})
    units = _open(data)
    folds = _folds(table, units)
    is_synthetic = set(units["unit_kind"]) == {"synthetic"}
    if not chosen and not is_synthetic:
        raise InputError(
            "Which network is the encoder? For instance --encoder torchvision:resnet50."
        )
    sizes = sizes or ("small" if chosen.get("backbone", encoders.MINI) == encoders.MINI else "2022")
    seeing = encoders.build(**chosen)
    tell(f"features of {len(units):,} units")
    features = _features(units, seeing, place)
    jobs = [
        TrainingJob(fold, seed, place, units["descriptions"], chosen, sizes,
            {**asdict(DEFAULTS[sizes]), **(settings or {}), "seed": seed})
        for fold in folds
        for seed in seeds
    ]  # fmt: skip
    for done, job in enumerate(_run(jobs), 1):
        tell(f"{done} of {len(jobs)}: {job.fold.name}, seed {job.seed}")
    asked = list(metrics or (SYNTHETIC if is_synthetic else PEOPLE))
    lam = _lambda(jobs, units, asked[0])
    values = _values(jobs, units, features, asked, lam, tell)
    rows, differences = _summary(values, table, draws)
    made = {
        "edition": edition_name(data),
        "synthetic": is_synthetic,
        "encoder": asdict(seeing.config),
        "seeds": list(seeds),
        "lambda": lam,
        "lambdas": list(LAMBDAS),
        "settings": jobs[0].settings,
        "units": {fold.name: {"train": len(fold.train), "test": len(fold.test)} for fold in folds},
    }
    found = ReproducedTable(table, rows, differences, lam, made)
    _write(found, values, place)
    return found


# ---- what is trained on what


def _open(data: str) -> Any:
    """Return all units of an edition, every config once, with their split in `split`."""
    from datasets import concatenate_datasets

    parts = []
    for config in list_configs(data):
        if config in catalog.GROUPS:
            continue
        for split, rows in loading.load(data, config).items():
            parts.append(rows.add_column("split", [str(split)] * len(rows)))
    return concatenate_datasets(parts)


def _folds(table: str, units: Any) -> list[Fold]:
    keys = [Unit(*key) for key in zip(units["network"], units["layer"], units["unit"], strict=True)]
    described = [any(texts) for texts in units["descriptions"]]
    networks = list(dict.fromkeys(key.network for key in keys))
    if set(networks) & set(catalog.NETWORKS):
        return list(_published(table, keys, described, networks))
    parts = {
        (network, split): tuple(
            i
            for i, (key, own) in enumerate(zip(keys, units["split"], strict=True))
            if described[i] and key.network == network and own == split
        )
        for network in networks
        for split in ("train", "validation", "test")
    }
    if len(networks) < 2:
        raise InputError(
            f"The edition holds one network ({networks[0]}); the tables compare networks."
        )

    def fold(name: str, sources: Sequence[str], target: str) -> Fold:
        train, validation = (
            tuple(i for source in sources for i in parts[source, split])
            for split in ("train", "validation")
        )
        return _with_held_out(name, train, validation, parts[target, "test"])

    if table == "table2":
        return [
            fold(target, [name for name in networks if name != target], target)
            for target in networks
        ]
    return [
        *(fold(f"within-network/{name}", [name], name) for name in networks),
        *(
            fold(f"across-network/{source}-to-{target}", [source], target)
            for source in networks
            for target in networks
            if source != target
        ),
    ]


def _published(
    table: str, keys: Sequence[Unit], described: Sequence[bool], networks: Sequence[str]
) -> Iterator[Fold]:
    """Yield the paper's conditions whose networks are all there."""
    places = {key: i for i, key in enumerate(keys) if described[i]}
    found = 0
    for name in PAPER[table]:
        split = splits.split(f"leave-one-out/{name}" if table == "table2" else name)
        if {unit.network for unit in (*split.train, *split.test)} <= set(networks):
            train, test = (
                tuple(places[unit] for unit in side if unit in places)
                for side in (split.train, split.test)
            )
            found += 1
            yield _with_held_out(name, train, (), test)
    if not found:
        raise InputError(
            f"{table} needs more published networks than {', '.join(networks)}. Prepare them: "
            "milan data prepare base --download --out EDITION"
        )


def _with_held_out(
    name: str, train: tuple[int, ...], validation: tuple[int, ...], test: tuple[int, ...]
) -> Fold:
    """Return a fold; a seeded tenth of the training units is held out where none are."""
    if not validation:
        order = np.random.default_rng(0).permutation(len(train))
        count = max(1, len(train) // 10)
        validation = tuple(sorted(train[i] for i in order[:count]))
        train = tuple(sorted(train[i] for i in order[count:]))
    return Fold(name, train, validation, test)


def _features(units: Any, encoder: Any, place: Path) -> Features:
    from milan.features import features_of

    return features_of(units, encoder, file=place / "features.npy", progress=os.isatty(2))


def _run(jobs: Sequence[TrainingJob]) -> Iterator[TrainingJob]:
    """Train what is not trained yet: on a CPU one process a core, else one after the other."""
    import torch

    left = [job for job in jobs if not job.file.exists()]
    yield from (job for job in jobs if job.file.exists())
    workers = min(len(left), 1 if torch.cuda.is_available() else os.cpu_count() or 1)
    if workers <= 1:
        yield from map(_answer, left)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_answer, left)


def _answer(job: TrainingJob) -> TrainingJob:
    """Train one model and write what it says of test and held-out units."""
    import torch

    from milan import encoder as encoders
    from milan.config import TrainingConfig
    from milan.features import Features
    from milan.training import learn
    from milannotations.exemplars.device import best_device

    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # one process a core, and the same sums on every machine
    features = Features(np.load(job.out / "features.npy", mmap_mode="r"))
    sides = [job.fold.train, job.fold.validation]
    model, _ = learn(
        [features.of(rows) for rows in sides],
        [[job.texts[i] for i in rows] for rows in sides],
        encoders.build(**job.encoder).to(best_device()),
        job.file.with_suffix(".training"),
        job.sizes,
        TrainingConfig(**job.settings),
    )
    said: dict[str, Any] = {}
    for name, rows in (("test", job.fold.test), ("validation", job.fold.validation)):
        values, present = features.of(rows).tensors()
        beam = model.describe_features(values, present, strategy="beam").n_best
        said[name] = {
            "rows": rows,
            "greedy": model.describe_features(values, present, strategy="greedy").text,
            "beam": [[(c.text, c.log_p_given_exemplars, c.log_p) for c in own] for own in beam],
        }
    with replacing(job.file) as temporary:
        temporary.write_text(json.dumps(said))
    shutil.rmtree(job.file.with_suffix(".training"))
    return job


# ---- what it is worth


@dataclass(frozen=True)
class _Said:
    """A candidate as it stands in the file of answers."""

    text: str
    log_p_given_exemplars: float
    log_p: float | None


def _read(job: TrainingJob, side: str) -> tuple[list[int], list[str], list[list[Any]]]:
    """Return rows, greedy descriptions, and the beam."""
    found = json.loads(job.file.read_text())[side]
    return found["rows"], found["greedy"], [[_Said(*one) for one in own] for own in found["beam"]]


def _lambda(jobs: Sequence[TrainingJob], units: Any, metric: str) -> float:
    """Return the one lambda of the table: the best on all units held out, of the first seed."""
    first = [job for job in jobs if job.seed == jobs[0].seed]
    held_out = []
    for job in first:
        rows, _, beam = _read(job, "validation")
        held_out.append((units.select(rows), beam))
    return choose_lambda(held_out, metric)


def _values(
    jobs: Sequence[TrainingJob],
    units: Any,
    features: Features,
    metrics: Sequence[str],
    lam: float,
    tell: Callable[[str], Any],
) -> pd.DataFrame:
    """Return a value and a lift for each fold, seed, method, metric and unit."""
    import pandas as pd

    built, made = build(list(metrics)), []
    for job in jobs:
        tell(f"scoring {job.fold.name}, seed {job.seed}")
        rows, greedy, beam = _read(job, "test")
        answers = {"greedy": greedy, "beam": best_of(beam, 0.0), "pmi": best_of(beam, lam)}
        if job.seed == jobs[0].seed:  # it learns nothing, so one seed says all
            answers["nearest"] = _nearest(job.fold, features, units["descriptions"])
        known = _references(units, job.fold)
        keys = [
            Unit(*key) for key in zip(*(units.select(rows)[c] for c in Unit._fields), strict=True)
        ]
        for method, texts in answers.items():
            found = score(
                predictions.from_texts(keys, texts), known, built, split="test",
                settings=ScoreConfig(draws=10),
            )  # fmt: skip
            own = found.units.assign(fold=job.fold.name, seed=job.seed, method=method)
            made.append(own)
            if method == "nearest":
                made.append(_person(found, own))
    return pd.concat(made, ignore_index=True)


def _person(found: Any, own: pd.DataFrame) -> pd.DataFrame:
    """Return one person's mean and lift, as rows without a unit."""
    import pandas as pd

    person = found.record.floors.get(HUMAN, {})
    return pd.DataFrame(
        {
            "network": None, "layer": None, "unit": -1, "metric": name, "value": estimate.mean,
            "lift": estimate.lift, "fold": own.fold.iloc[0], "seed": own.seed.iloc[0],
            "method": "one person",
        }
        for name, estimate in person.items()
    )  # fmt: skip


def _references(units: Any, fold: Fold) -> references.References:
    """Return what people wrote of the tested networks: the fold's units are `test`."""
    networks = set(units.select(fold.test)["network"])
    others = sorted(
        {i for i, name in enumerate(units["network"]) if name in networks} - set(fold.test)
    )
    parts = {"test": units.select(fold.test)}
    if others:
        parts["others"] = units.select(others)
    return references.from_dataset(parts, edition="reproduced", config=fold.name.replace("/", "-"))


def _nearest(fold: Fold, features: Features, texts: Sequence[list[str]]) -> list[str]:
    """Return what was written of the training unit whose mean features are closest (cosine)."""
    sides = []
    for rows in (fold.train, fold.test):
        values, present = features.of(rows).tensors()
        seen = (present & (values.abs().amax(2) > 0)).double()[..., None]
        mean = (values.double() * seen).sum(1) / seen.sum(1).clamp(min=1)
        sides.append(mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12))
    closest = (sides[1] @ sides[0].T).round(decimals=6).argmax(1).tolist()
    return [medoid([text for text in texts[fold.train[i]] if text.strip()]) for i in closest]


def _summary(values: pd.DataFrame, table: str, draws: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return means a fold and method, and paired differences with intervals."""
    import pandas as pd

    per_seed = values.groupby(["fold", "metric", "method", "seed"], sort=False)[["value", "lift"]]
    means = per_seed.mean().groupby(level=[0, 1, 2], sort=False)
    rows = means.mean().rename(columns={"value": "mean"})
    rows["spread"] = means["lift"].std()
    rows = rows.reset_index()
    rows["paper"] = [
        PAPER[table].get(fold, {}).get(method)
        for fold, method in zip(rows.fold, rows.method, strict=True)
    ]
    units = values[values.method != "one person"]
    keys = ["fold", "network", "layer", "unit"]
    lines = []
    for metric, own in units.groupby("metric", sort=False):
        wide = own.groupby([*keys, "method"])["value"].mean().unstack("method")
        for other in [method for method in METHODS if method != "pmi"]:
            for fold, part in [("all", wide), *wide.groupby("fold", sort=False)]:
                difference = (part["pmi"] - part[other]).dropna().to_numpy()
                weights = statistics.bootstrap_weights(len(difference), draws, 0)
                drawn = statistics.resampled_means(difference, weights)
                low, high = statistics.interval(drawn)
                lines.append(
                    {
                        "metric": metric, "fold": fold, "pmi less": other,
                        "difference": difference.mean(), "low": float(low), "high": float(high),
                        "p": statistics.two_sided_p(drawn), "n": len(difference),
                    }
                )  # fmt: skip
    differences = pd.DataFrame(lines)
    for _, family in differences.groupby(differences.fold == "all"):  # what is shown together
        differences.loc[family.index, "p_holm"] = statistics.holm(family["p"].tolist())
    return rows, differences


def _write(found: ReproducedTable, values: pd.DataFrame, place: Path) -> None:
    def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
        return [
            {key: None if value != value else value for key, value in row.items()}
            for row in frame.to_dict("records")
        ]

    with replacing(place / f"{found.name}.csv") as temporary:
        values.to_csv(temporary, index=False)
    content = {
        "table": found.name,
        **found.made,
        "rows": plain(found.rows),
        "differences": plain(found.differences),
    }
    with replacing(place / f"{found.name}.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def render(found: ReproducedTable) -> Any:
    """Return a rich renderable of a table, with what is to be known beside it."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    parts: list[Any] = []
    if found.made["synthetic"]:
        parts.append(
            Text(
                "A synthetic edition, with simulated annotators: it shows that the pipeline works, "
                "not what it is worth on photographs.\n"
            )
        )
    columns = [*METHODS, "one person"]
    for metric, own in found.rows.groupby("metric", sort=False):
        grid = Grid(box=None, pad_edge=False, title=f"{metric}: mean (above shuffle)",
                    title_justify="left", title_style="bold", header_style="bold")  # fmt: skip
        for name in ("tested", *columns, "paper: p(d|E), MILAN"):
            grid.add_column(name, justify="left" if name == "tested" else "right")
        for fold, part in own.groupby("fold", sort=False):
            cells = part.set_index("method")
            grid.add_row(
                fold,
                *(_cell(cells, name) for name in columns),
                ", ".join(f"{value:.2f}" for value in PAPER[found.name].get(fold, {}).values())
                or "-",
            )
        parts += [grid, Text("")]
    grid = Grid(box=None, pad_edge=False, title="MILAN (pmi) less the others, paired by unit, 95 %",
                title_justify="left", title_style="bold", header_style="bold")  # fmt: skip
    for name in ("metric", "tested", "less", "difference", "p, Holm", "units"):
        grid.add_column(name, justify="left" if name in ("metric", "tested", "less") else "right")
    shown = found.differences[found.differences.fold == "all"]
    for row in shown.to_dict("records"):
        grid.add_row(
            row["metric"], row["fold"], row["pmi less"],
            f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})",
            f"{row['p_holm']:.3f}", f"{row['n']:,}",
        )  # fmt: skip
    paper = ", ".join(f"{fold} {_printed(found.name, fold)}" for fold in PAPER[found.name])
    parts += [
        grid,
        Text(
            f"\nlambda {found.lam:g}, chosen once, on held-out units. Seeds: "
            f"{', '.join(map(str, found.made['seeds']))}. Differences by fold: {found.name}.json.\n"
            "The paper's p(d|E) was greedy; beam without mutual information stands beside it. Its "
            f"figures are BERTScore F on other data, not to be held against these: {paper}."
        ),
    ]
    return Group(*parts)


def _printed(table: str, fold: str) -> str:
    """Return the paper's figures of a fold."""
    return " ".join(f"{value:.2f}" for value in PAPER[table].get(fold, {}).values())


def _cell(cells: pd.DataFrame, method: str) -> str:
    if method not in cells.index:
        return "-"
    row = cells.loc[method]
    spread = "" if row.spread != row.spread else f" ±{row.spread:.3f}"
    lift = "" if row.lift != row.lift else f" ({row.lift:+.3f}{spread})"
    return f"{row['mean']:.3f}{lift}"
