"""CLIP-Dissect: the concept whose similarity to the probe images follows a unit's activations.

Notation of the paper (section 3): P is the similarity of each probe image with each concept of a
list, as a text-image model sees it; q are a unit's pooled activations on the images. A unit is
described by the concept t with the largest sim(t, q; P).

A CLIP or SigLIP that judges these descriptions is of the same family as the model that chose them,
and no independent judge.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.framework.units import unit_keys
from baselines.shared.clip import EXAMPLE_MODEL, ClipModel, TextImageModel
from baselines.shared.concept_formulas import readable_name
from milannotations.errors import InputError, did_you_mean
from milannotations.published.annotations import has_words

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.shared.probe_statistics import ProbeStatistics

SPEC = MethodSpec(
    name="clip-dissect",
    version="1.0",
    kind="method",
    title="The concept of a list whose text-image similarity goes with the activations",
    paper="Oikarinen and Weng 2023, CLIP-Dissect: Automatic Description of Neuron "
    "Representations in Deep Vision Networks",
    trained_on="what its CLIP or SigLIP was; a CLIP that judges its answers is of the same family",
    requires=("activations", "text-image model"),
)

BLOCK = 2**22
"""Float64 numbers of a block that is computed at once."""


class ClipDissect:
    """Describe all units of a layer at once, from q of each unit and P.

    A constant unit prefers no images: it is abstained, and left out of the mean p(t) over units.
    """

    spec = SPEC

    def __init__(
        self,
        model: str | Path | TextImageModel | None,
        concepts: str | Path | None,
        similarity: Callable[[Tensor, Tensor], Tensor],
        settings: tuple[Any, ...],
        pool: str,
        cache: str | Path | None,
    ) -> None:
        self._model, self._cache, self._pool = model, cache, pool
        self._concepts = None if concepts is None else read_concepts(concepts)
        self._similarity, self._settings = similarity, settings

    def describe(self, units: Any, context: Context) -> list[Description]:
        keys = unit_keys(units)
        if not keys:
            return []
        self._load_model()  # fail before a pass that may take hours
        descriptions = list[Description]()
        for unit in keys:
            statistics = context.probe_statistics(unit.network)
            [(layer, index)] = statistics.locate([unit])
            chosen = self._choose(layer, statistics, context)[index]
            descriptions.append(
                Description.abstained() if chosen is None else Description.of(*chosen)
            )
        return descriptions

    def _load_model(self) -> TextImageModel:
        if self._model is None:
            raise InputError(
                "'clip-dissect' needs a text-image model. Give the folder of a CLIP or SigLIP, or "
                f"its name on the hub: --model DIR, such as {EXAMPLE_MODEL}."
            )
        if isinstance(self._model, str | Path):
            self._model = ClipModel.load(self._model, cache=self._cache)
        return self._model

    def _choose(
        self, layer: str, statistics: ProbeStatistics, context: Context
    ) -> list[tuple[str, float] | None]:
        """Return (concept, similarity) of each unit of a layer; None for a constant unit."""
        names = self._concepts or list(
            dict.fromkeys(readable_name(concept.name) for concept in statistics.concepts)
        )
        model = self._load_model()
        names_digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        context.chosen_on[statistics.network].update(
            concepts={"count": len(names), "sha256": names_digest}, text_image_model=model.digest
        )

        def compute_p() -> Tensor:
            images = (statistics.image(i) for i in range(len(statistics.items)))
            return model.embed_images(images) @ model.embed_texts(names).T  # (image, concept)

        def choose() -> list[tuple[str, float] | None]:
            q = statistics.pooled_activations(self._pool)[layer].float()  # (image, unit)
            varying = (q != q[:1]).any(0)
            chosen: list[tuple[str, float] | None] = [None] * len(varying)
            if varying.any():
                p = context.cached((*key, "P"), compute_p)
                similarities = self._similarity(p, q[:, varying]).numpy()  # (unit, concept)
                for unit, row in zip(varying.nonzero()[:, 0].tolist(), similarities, strict=True):
                    concept = int(row.argmax())  # the first of the list, if several
                    chosen[unit] = names[concept], round(float(row[concept]), 4)
            return chosen

        key = (SPEC.name, statistics.network, model.digest, names_digest)
        return context.cached((*key, layer, self._pool, self._settings), choose)


def create(
    model: str | Path | TextImageModel | None = None,
    concepts: str | Path | None = None,
    similarity: str = "soft-wpmi",
    pool: str = "mean",
    top: int | None = None,
    a: float | None = None,
    lam: float | None = None,
    cache: str | Path | None = None,
) -> ClipDissect:
    """Return the method.

    Args:
        model: folder or name on the hub of a CLIP or SigLIP of transformers; or any
            `TextImageModel`.
        concepts: text file with one concept per line; None uses the names of the probe's concepts.
        similarity: `soft-wpmi`, `wpmi`, `rank-reorder`, `cosine` or `cosine-cubed`. The paper
            chose soft-wpmi, and cosine did worst (table 3).
        pool: pooling of a unit's activations over positions: `mean` or `max`.
        top: number of images with the highest activations (soft-wpmi: 100, wpmi: 28).
        a: scale of similarities before the softmax (soft-wpmi: 10, wpmi: 2).
        lam: lambda, weight of log p(t) (soft-wpmi: 1, wpmi: 0.6).
        cache: folder for embeddings; None keeps them in memory only.

    Raises:
        InputError: unknown similarity, an option that it does not have, or no such file.
    """
    if similarity not in SIMILARITIES:
        raise InputError(
            f"No similarity '{similarity}'.{did_you_mean(similarity, SIMILARITIES)} Expected "
            f"{', '.join(SIMILARITIES)}."
        )
    if pool not in ("mean", "max"):
        raise InputError(f"No pooling '{pool}'; expected mean or max.")
    function = SIMILARITIES[similarity]
    given = {"top": top, "a": a, "lam": lam}
    options = {name: value for name, value in given.items() if value is not None}
    unknown = [name for name in options if name not in inspect.signature(function).parameters]
    if unknown:
        raise InputError(f"'{similarity}' takes no {unknown[0]}; soft-wpmi and wpmi do.")
    if top is not None and top < 1:
        raise InputError(f"top={top}; expected at least one image.")
    settings = (similarity, *sorted(options.items()))
    return ClipDissect(model, concepts, partial(function, **options), settings, pool, cache)


def read_concepts(path: str | Path) -> list[str]:
    """Return the concepts of a text file with one per line, without empty lines and repetitions.

    Raises:
        InputError: no such file, not UTF-8, a line without a word, or no line.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(
            f"No list of concepts '{path}' ({error.strerror}). Expected a text file with one "
            "concept per line."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}).") from error
    concepts = dict.fromkeys(line.strip() for line in lines if line.strip())
    wordless = next((concept for concept in concepts if not has_words(concept)), None)
    if wordless is not None:
        raise InputError(f"{path} holds {wordless!r}, which has no word. Remove the line.")
    if not concepts:
        raise InputError(f"{path} holds no concept. Expected one per line.")
    return list(concepts)


# ---- sim(t, q; P), from P (image, concept) and q (image, unit): float64 (unit, concept)


def soft_wpmi(
    similarities: Tensor,
    activations: Tensor,
    *,
    top: int = 100,
    a: float = 10.0,
    lam: float = 1.0,
    start: float = 0.998,
    end: float = 0.97,
) -> Tensor:
    """Return soft-WPMI: how much likelier a concept is in a unit's images than in others'.

    Section 3, SoftWPMI: log p(t | B) - lam log p(t), where

        log p(t | B) = sum over images x of log(1 + p(x in B) (p(t | x) - 1)),

    p(t | x) is the softmax of a P over concepts. p(x in B) falls linearly from `start`, for the
    image with the highest activation, towards `end` over the first `top` images, and is 0 for the
    others. p(t) is the mean of p(t | B) over the units. The constants are those of the authors'
    public code, which adds 1e-7 to the argument of the logarithm; this is left out here, as the
    argument is never below 1 - start. Of images with equal activations, the earlier comes first;
    with fewer than `top` images all are used.

    Args:
        similarities: P, (image, concept).
        activations: q, (image, unit), of all units of a layer.
        top, a, lam, start, end: see above.
    """
    import torch

    k = min(top, len(similarities))
    # p(x in B) by rank of the image, (k, 1)
    membership = start - torch.arange(k, dtype=torch.float64)[:, None] / k * (start - end)

    def log_likelihood(rows: Tensor) -> Tensor:
        # rows of P, (k, concept) -> log p(t | B), (concept,). An image that may not belong to B
        # counts less: with p(x in B) near 0 its term is log 1 = 0, with 1 it is log p(t | x).
        return torch.log1p(membership * ((a * rows).softmax(1) - 1)).sum(0)

    return _pmi(_apply_to_top(similarities, activations, k, log_likelihood), lam)


def wpmi(
    similarities: Tensor, activations: Tensor, *, top: int = 28, a: float = 2.0, lam: float = 0.6
) -> Tensor:
    """Return WPMI: log p(t | B) - lam log p(t), for the `top` images B of a unit.

    Section 3, WPMI: log p(t | B) = sum over x in B of log p(t | x); otherwise as `soft_wpmi`. The
    constants are those of the authors' public code.
    """
    k = min(top, len(similarities))
    log_likelihoods = _apply_to_top(
        similarities, activations, k, lambda rows: (a * rows).log_softmax(1).sum(0)
    )
    return _pmi(log_likelihoods, lam)


def rank_reorder(similarities: Tensor, activations: Tensor, *, power: float = 3.0) -> Tensor:
    """Return minus the distance of q to q reordered by the concept's ranks of the images.

    Section 3, Rank reorder: -||q' - q||_p with p = 3, where q'_i is the n-th largest of q if
    P_i,t is the n-th largest of the concept's similarities. All images count, as in the paper. The
    authors' public code takes the 5 % with the highest activations, whose ranks no longer tell
    whether the concept is present, and so divides by the root of its mean similarity, which may
    be negative. Of equal similarities, the earlier image ranks lower.
    """
    import torch

    # rank of each image for each concept, from 0: the inverse permutation of the argsort
    ranks = similarities.argsort(dim=0, stable=True).argsort(dim=0)
    n_images, n_concepts = ranks.shape
    step = max(1, BLOCK // n_images)
    rows = []
    for q in activations.double().unbind(1):
        ordered = q.sort().values
        rows.append(
            torch.cat(
                [
                    (ordered[ranks[:, i : i + step]] - q[:, None]).abs().pow(power).sum(0)
                    for i in range(0, n_concepts, step)
                ]
            )
        )
    return -torch.stack(rows).pow(1 / power)


def cosine(similarities: Tensor, activations: Tensor) -> Tensor:
    """Return the cosine of q and P_:,t (section 3, Cos); 0 where either is zero."""
    return _cosines(similarities, activations, lambda values: values)


def cosine_cubed(similarities: Tensor, activations: Tensor) -> Tensor:
    """Return the cosine of the cubes of centered q and P_:,t (section 3, Cos cubed).

    The paper also divides by the standard deviation, which does not change a cosine.
    """
    return _cosines(similarities, activations, lambda values: (values - values.mean(0)) ** 3)


SIMILARITIES: dict[str, Callable[..., Tensor]] = {
    "soft-wpmi": soft_wpmi,
    "wpmi": wpmi,
    "rank-reorder": rank_reorder,
    "cosine": cosine,
    "cosine-cubed": cosine_cubed,
}
"""Similarity functions by name; the first is the paper's choice."""


def _apply_to_top(
    similarities: Tensor, activations: Tensor, k: int, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """Apply a function to the rows of P of each unit's k images with the highest activations.

    Args:
        similarities: P, (image, concept).
        activations: q, (image, unit).
        k: number of images.
        function: from (k, concept), the highest activation first, to (concept,).

    Returns:
        (unit, concept).
    """
    import torch

    top = activations.argsort(dim=0, descending=True, stable=True)[:k]
    return torch.stack([function(similarities[images].double()) for images in top.unbind(1)])


def _pmi(log_likelihoods: Tensor, lam: float) -> Tensor:
    """Return log p(t | B) - lam log p(t), with p(t) the mean of p(t | B) over units.

    Args:
        log_likelihoods: log p(t | B), (unit, concept).
        lam: lambda.
    """
    import math

    # the log of a mean of exponentials, without leaving logarithms
    log_p = log_likelihoods.logsumexp(0) - math.log(len(log_likelihoods))
    return log_likelihoods - lam * log_p


def _cosines(
    similarities: Tensor, activations: Tensor, transform: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the cosines of transformed q and P, (unit, concept)."""
    import torch
    from torch.nn import functional

    q = functional.normalize(transform(activations.double()), dim=0, eps=1e-30)
    step = max(1, BLOCK // len(similarities))
    # in blocks of concepts, as P in float64 may not fit into memory
    return torch.cat(
        [
            q.T @ functional.normalize(transform(block.double()), dim=0, eps=1e-30)
            for block in similarities.split(step, 1)
        ],
        1,
    )
