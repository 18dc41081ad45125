"""CLIP-Dissect: the concept whose similarity to the probe pictures goes with the activations.

Notation of the paper (section 3): P, similarity of each probe picture with each concept of a list,
as a text-image model sees it; q, a unit's pooled activations on the pictures. The unit is called
what has the largest sim(t, q; P).

A CLIP (or SigLIP) that judges these answers is of the same family as the model that gave them,
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
from baselines.framework.run import unit_keys
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
"""Numbers of a block that are worked on at once, in float64."""


class ClipDissect:
    """Compares q of each unit with P, all units of a layer at once.

    A unit that is constant has no pictures that excite it: it means nothing (abstained), and is
    not among the units over which p(t) is the mean.
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
        members = unit_keys(units)
        if not members:
            return []
        self._loaded()  # before a pass that may take hours
        said = list[Description]()
        for unit in members:
            probing = context.probe_statistics(unit.network)
            ((layer, row),) = probing.locate([unit])
            chosen = self._chosen(layer, probing, context)[row]
            said.append(Description.abstained() if chosen is None else Description.of(*chosen))
        return said

    def _loaded(self) -> TextImageModel:
        if self._model is None:
            raise InputError(
                "'clip-dissect' needs a text-image model. Give the folder of a CLIP or SigLIP, or "
                f"its name on the hub: --model DIR, such as {EXAMPLE_MODEL} (create(model=...))."
            )
        if isinstance(self._model, str | Path):
            self._model = ClipModel.load(self._model, cache=self._cache)
        return self._model

    def _chosen(
        self, layer: str, probing: ProbeStatistics, context: Context
    ) -> list[tuple[str, float] | None]:
        """Return (concept, similarity) of each unit of a layer; None for a constant unit."""
        names = self._concepts or list(
            dict.fromkeys(readable_name(c.name) for c in probing.concepts)
        )
        model = self._loaded()
        listed = hashlib.sha256("\n".join(names).encode()).hexdigest()
        context.chosen_on[probing.network].update(
            concepts={"count": len(names), "sha256": listed}, text_image_model=model.digest
        )

        def similarities() -> Tensor:
            pictures = (probing.image(i) for i in range(len(probing.items)))
            return model.embed_images(pictures) @ model.embed_texts(names).T

        def choose() -> list[tuple[str, float] | None]:
            q = probing.pooled_activations(self._pool)[layer].float()
            moves = (q != q[:1]).any(0)
            chosen: list[tuple[str, float] | None] = [None] * len(moves)
            if moves.any():
                p = context.cached((*of, "P"), similarities)
                best = self._similarity(p, q[:, moves]).numpy()
                for unit, row in zip(moves.nonzero()[:, 0].tolist(), best, strict=True):
                    concept = int(row.argmax())  # the first of the list, if several
                    chosen[unit] = names[concept], round(float(row[concept]), 4)
            return chosen

        of = (SPEC.name, probing.network, model.digest, listed)
        return context.cached((*of, layer, self._pool, self._settings), choose)


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
        concepts: text file, a concept a line; None takes the names of the probe's concepts.
        similarity: `soft-wpmi`, `wpmi`, `rank-reorder`, `cosine` or `cosine-cubed`. In the paper
            soft-wpmi was chosen, and cosine did worst (table 3).
        pool: of a unit's activations on a picture: `mean` or `max` over positions.
        top: pictures that excite a unit most (soft-wpmi: 100, wpmi: 28).
        a: scale of similarities before the softmax (soft-wpmi: 10, wpmi: 2).
        lam: lambda, weight of log p(t) (soft-wpmi: 1, wpmi: 0.6).
        cache: folder in which embeddings are kept; None keeps them in memory alone.

    Raises:
        InputError: no such similarity, or one that does not take an option; no such file.
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
    strange = [name for name in options if name not in inspect.signature(function).parameters]
    if strange:
        raise InputError(f"'{similarity}' takes no {strange[0]}; soft-wpmi and wpmi do.")
    if top is not None and top < 1:
        raise InputError(f"top={top}; expected at least one picture.")
    settings = (similarity, *sorted(options.items()))
    return ClipDissect(model, concepts, partial(function, **options), settings, pool, cache)


def read_concepts(path: str | Path) -> list[str]:
    """Return the concepts of a text file, a line each; empty lines and repetitions are left out.

    Raises:
        InputError: no such file; not UTF-8; a line without a word; no line.
    """
    place = Path(path).expanduser()
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(
            f"No list of concepts '{path}' ({error.strerror}). Expected a text file, a concept a "
            "line."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}).") from error
    found = dict.fromkeys(line.strip() for line in lines if line.strip())
    wordless = next((each for each in found if not has_words(each)), None)
    if wordless is not None:
        raise InputError(f"{path} holds {wordless!r}, which has no word. Remove the line.")
    if not found:
        raise InputError(f"{path} holds no concept. Expected one a line.")
    return list(found)


# ---- sim(t, q; P), of P (image, concept) and q (image, unit): float64 (unit, concept)


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
    """Return soft-WPMI: how much likelier the unit's pictures are of a concept than others' are.

    Section 3, SoftWPMI: log p(t | B) - lam log p(t), where

        log p(t | B) = sum over pictures x of log(1 + p(x in B) (p(t | x) - 1)),

    p(t | x) is the softmax of a P over concepts, p(x in B) falls evenly from `start` (the picture
    that excites the unit most) towards `end` over the `top` first and is 0 elsewhere, and p(t) is
    the mean of p(t | B) over the units. The constants are those of the authors' public code. It
    adds 1e-7 to the argument of the logarithm, which is left out here: it is never below 1 - start.
    Of pictures that excite a unit equally, the earlier comes first; with fewer than `top` pictures
    all are taken.

    Args:
        similarities: P, (image, concept).
        activations: q, (image, unit), of all units of a layer.
        top, a, lam, start, end: see above.
    """
    import torch

    k = min(top, len(similarities))
    inside = start - torch.arange(k, dtype=torch.float64)[:, None] / k * (start - end)

    def given(rows: Tensor) -> Tensor:
        return torch.log1p(inside * ((a * rows).softmax(1) - 1)).sum(0)

    return _pmi(_excited(similarities, activations, k, given), lam)


def wpmi(
    similarities: Tensor, activations: Tensor, *, top: int = 28, a: float = 2.0, lam: float = 0.6
) -> Tensor:
    """Return WPMI: log p(t | B) - lam log p(t), of the `top` pictures B that excite a unit most.

    Section 3, WPMI: log p(t | B) = sum over x in B of log p(t | x); otherwise as `soft_wpmi`. The
    constants are those of the authors' public code.
    """
    k = min(top, len(similarities))
    given = _excited(similarities, activations, k, lambda rows: (a * rows).log_softmax(1).sum(0))
    return _pmi(given, lam)


def rank_reorder(similarities: Tensor, activations: Tensor, *, power: float = 3.0) -> Tensor:
    """Return minus the distance of q to q reordered as the concept ranks the pictures.

    Section 3, Rank reorder: -||q' - q||_p with p = 3, where q'_i is the n-th largest of q if
    P_i,t is the n-th largest of the concept's similarities. All pictures count, as in the paper;
    the authors' public code takes the 5 % that excite the unit most, where the ranks among them no
    longer tell whether the concept is there, and so divides by the root of its mean similarity,
    which may be negative. Of equal similarities, the earlier picture ranks lower.
    """
    import torch

    ranks = similarities.argsort(dim=0, stable=True).argsort(dim=0)
    images, concepts = ranks.shape
    step = max(1, BLOCK // images)
    rows = []
    for q in activations.double().unbind(1):
        ordered = q.sort().values
        rows.append(
            torch.cat(
                [
                    (ordered[ranks[:, i : i + step]] - q[:, None]).abs().pow(power).sum(0)
                    for i in range(0, concepts, step)
                ]
            )
        )
    return -torch.stack(rows).pow(1 / power)


def cosine(similarities: Tensor, activations: Tensor) -> Tensor:
    """Return the cosine of q and P_:,t (section 3, Cos); 0 where either is 0 throughout."""
    return _cosines(similarities, activations, lambda values: values)


def cosine_cubed(similarities: Tensor, activations: Tensor) -> Tensor:
    """Return the cosine of the cubes of q and P_:,t, less their means (section 3, Cos cubed).

    The paper also divides by the deviation, which a cosine does not see.
    """
    return _cosines(similarities, activations, lambda values: (values - values.mean(0)) ** 3)


SIMILARITIES: dict[str, Callable[..., Tensor]] = {
    "soft-wpmi": soft_wpmi,
    "wpmi": wpmi,
    "rank-reorder": rank_reorder,
    "cosine": cosine,
    "cosine-cubed": cosine_cubed,
}
"""By name; the first is the paper's choice."""


def _excited(
    similarities: Tensor, activations: Tensor, k: int, of: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what a function makes of P at the k pictures that excite each unit most."""
    import torch

    first = activations.argsort(dim=0, descending=True, stable=True)[:k]
    return torch.stack([of(similarities[chosen].double()) for chosen in first.unbind(1)])


def _pmi(given: Tensor, lam: float) -> Tensor:
    """Return log p(t | B) - lam log p(t), p(t) being the mean over units: (unit, concept)."""
    import math

    return given - lam * (given.logsumexp(0) - math.log(len(given)))


def _cosines(similarities: Tensor, activations: Tensor, made: Callable[[Tensor], Tensor]) -> Tensor:
    import torch
    from torch.nn import functional

    q = functional.normalize(made(activations.double()), dim=0, eps=1e-30)
    step = max(1, BLOCK // len(similarities))
    return torch.cat(
        [
            q.T @ functional.normalize(made(part.double()), dim=0, eps=1e-30)
            for part in similarities.split(step, 1)
        ],
        1,
    )
