"""Metrics: their names, their specs, and the folders of their `evaluate` modules.

    from leaderboard import metrics

    metrics.get("rouge-l")                       # a Metric
    evaluate.load(metrics.path("rouge"))         # the same numbers, as a module of `evaluate`

To add one, write a class in a module here and add an instance to `_plain` or `_neural`.
A metric is accepted if it agrees with a third-party implementation.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from leaderboard.metrics.base import Metric, MetricSpec, PairMetric, RowMetric, TextMetric
from milannotations.errors import InputError, did_you_mean

__all__ = [
    "ALLREF",
    "Metric",
    "MetricSpec",
    "PairMetric",
    "RowMetric",
    "TextMetric",
    "build",
    "catalogue",
    "expand",
    "get",
    "left_out",
    "needs_model",
    "path",
]

ALLREF = "-allref"
"""Suffix of scores against all references of a unit; names without it use matched references."""

DEFAULT = (
    "retrieval-tfidf-auc",
    "retrieval-tfidf-top1",
    "rouge-l",
    "rouge-l-allref",
    "rouge-l-max-allref",
    "rouge-1",
    "rouge-2",
    "bleu-4",
    "bleu-4-allref",
    "no-overlap",
    "distinct",
    "top10-share",
    "length",
)
NEURAL = (
    "retrieval-embedding-auc",
    "retrieval-embedding-top1",
    "embedding",
    "bertscore",
    "bertscore-idf",
)
SYNTHETIC = (
    "concept-f1",
    "concept-exact",
    "unparsed",
    "sense-recall",
    "identification",
    "identification-auc",
    "retrieval-tfidf-auc",
    "rouge-l",
    "distinct",
)
"""Set for editions whose units have a known truth. Without a text model, the metrics of
identification are left out."""

SETS = ("default", "lexical", "neural", "all", "synthetic")


def _plain() -> list[Metric]:
    """Return the metrics that need no model. Instances are cheap; fitting them may not be."""
    from leaderboard.metrics import candidate_ranking as ranking
    from leaderboard.metrics import overlap, paper_2022, repetition, truth, vectors

    tfidf = vectors.Tfidf()
    shared = overlap.BleuStatistics()
    orders = range(1, overlap.MAX_ORDER + 1)
    return [
        ranking.Retrieval(tfidf, "auc"),
        ranking.Retrieval(tfidf, "top1"),
        tfidf,
        *(overlap.Rouge(kind, how) for kind in ("l", "1", "2") for how in ("mean", "max")),
        *(overlap.CorpusBleu(order, shared) for order in reversed(orders)),
        *(overlap.SentenceBleu(order, shared) for order in reversed(orders)),
        overlap.NoOverlap(),
        repetition.Distinct(),
        repetition.TopShare(),
        repetition.Length(),
        truth.ConceptF1(),
        truth.ConceptExact(),
        truth.Unparsed(),
        truth.SenseRecall(),
        ranking.Identification(tfidf, "first"),
        ranking.Identification(tfidf, "auc"),
        *(paper_2022.Bleu2022(order, shared) for order in (None, *orders)),
        *(
            paper_2022.Rouge2022(kind, part)
            for kind in paper_2022.KINDS
            for part in paper_2022.PARTS
        ),
    ]


def _neural(model: str | None) -> list[Metric]:
    """Return the metrics of one text model; metrics of one kind share its encodings."""
    from leaderboard.metrics import bert, paper_2022, vectors
    from leaderboard.metrics import candidate_ranking as ranking
    from leaderboard.metrics.text_models import TextModel

    embedding = vectors.Embedding(TextModel.parse(model, sentences=True))
    tokens = bert.TokenVectors(TextModel.parse(model))
    return [
        ranking.Retrieval(embedding, "auc"),
        ranking.Retrieval(embedding, "top1"),
        embedding,
        ranking.Identification(embedding, "first"),
        ranking.Identification(embedding, "auc"),
        *(
            bert.BertScore(tokens, idf=idf, rescaled=rescaled, how=how)
            for idf in (False, True)
            for rescaled in (False, True)
            for how in ("mean", "max")
        ),
        *(paper_2022.BertScore2022(tokens, part) for part in paper_2022.PARTS),
    ]


def catalogue() -> list[MetricSpec]:
    """Return the spec of every metric; those that need a model have the default one.

    Rescaled scores have the model of the 2022 paper, because few models have a published
    baseline. If no model is available, the other metrics that need one have it too.
    """
    from leaderboard.metrics.text_models import PREFERRED

    preferred = [metric.spec for metric in _neural(PREFERRED)]
    try:
        available = [metric.spec for metric in _neural(None)]
    except InputError:
        available = preferred
    # rescaled scores are the ones without a lower bound
    neural = [
        rescaled if rescaled.low is None else spec
        for rescaled, spec in zip(preferred, available, strict=True)
    ]
    return [*(metric.spec for metric in _plain()), *neural]


def expand(names: Iterable[str]) -> list[str]:
    """Replace the sets (`default`, `lexical`, `neural`, ...) in a list of metric names.

    `all` holds the metrics that apply to every edition. If no text model is available,
    `synthetic` lacks the metrics that need one (see `left_out`).

    Example:
        >>> expand(["rouge-l", "default"])[:2]
        ['rouge-l', 'retrieval-tfidf-auc']
    """
    lexical = [
        metric.spec.name
        for metric in _plain()
        if metric.spec.against == "descriptions" and not metric.spec.name.endswith("-2022")
    ]
    missing = left_out(["synthetic"])
    sets = {
        "default": list(DEFAULT),
        "lexical": [*lexical, "rouge-l-allref", "rouge-l-max-allref", "bleu-4-allref"],
        "neural": list(NEURAL),
        "synthetic": [name for name in SYNTHETIC if name not in missing],
    }
    sets["all"] = [*sets["lexical"], *sets["neural"]]
    return list(
        dict.fromkeys(member for name in names for member in sets.get(name.strip().lower(), [name]))
    )


def left_out(names: Iterable[str]) -> list[str]:
    """Return the metrics that the named sets lack because no text model is available.

    Example:
        >>> left_out(["rouge-l", "default"])
        []
    """
    from leaderboard.metrics.text_models import is_available

    if "synthetic" not in {name.strip().lower() for name in names} or is_available(sentences=True):
        return []
    return [name for name in SYNTHETIC if needs_model(name)]


def build(names: Iterable[str]) -> dict[str, Metric]:
    """Return the metrics of some names, by full name (with model and `-allref`).

    Args:
        names: such as `rouge-l`, `rouge-l-allref`, `bertscore-idf`,
            `embedding@path/to/folder`, `bertscore@path/to/folder:6`.

    Raises:
        InputError: an unknown name; a metric that needs a model if none is available.

    Example:
        >>> list(build(["rouge-l", "rouge-l-allref"]))
        ['rouge-l', 'rouge-l-allref']
    """
    plain = {metric.spec.name: metric for metric in _plain()}
    neural: dict[str | None, dict[str, Metric]] = {}
    built: dict[str, Metric] = {}
    for name in names:
        suffix = ALLREF if name.endswith(ALLREF) else ""
        base, _, model = name.strip().removesuffix(ALLREF).partition("@")
        base = base.lower()
        if base in plain and not model:
            metric = plain[base]
        else:
            key = model or None
            if key not in neural and needs_model(base):
                neural[key] = {m.spec.name.partition("@")[0]: m for m in _neural(key)}
            if base not in neural.get(key, {}):
                raise _unknown(name, plain)
            metric = neural[key][base]
        if suffix and isinstance(metric, TextMetric):
            raise InputError(f"'{base}' uses no references, so there is no '{name}'.")
        if suffix and metric.spec.against != "descriptions":
            raise InputError(f"'{base}' scores against the truth, so there is no '{name}'.")
        built[metric.spec.name + suffix] = metric
    return built


def get(name: str) -> Metric:
    """Return the metric of a name (see `build`); the suffix `-allref` does not change it.

    Example:
        >>> get("rouge-l").spec.direction
        'higher'
    """
    return next(iter(build([name]).values()))


def path(name: str) -> str:
    """Return the folder to pass to `evaluate.load` for a metric or a family of metrics.

    Example:
        >>> path("rouge-l").endswith("leaderboard/metrics/rouge")
        True
    """
    here = Path(__file__).parent
    if (here / name / f"{name}.py").is_file():
        return str(here / name)
    return str(here / get(name).spec.family)


def needs_model(name: str) -> bool:
    """Return True if a metric of this name needs a text model."""
    return name.startswith(
        ("bertscore", "embedding", "retrieval-embedding", "identification")
    ) and not name.startswith("identification-tfidf")


def _unknown(name: str, plain: Iterable[str]) -> InputError:
    known = [*plain, *NEURAL, *SYNTHETIC, *SETS]
    return InputError(
        f"No metric '{name}'.{did_you_mean(name, known)} See: milan list metrics. "
        f"Sets: {', '.join(SETS)}. A model follows an @: bertscore@path/to/folder:LAYER."
    )
