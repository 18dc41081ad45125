"""INVERT: the formula over concepts whose presence a unit's activations tell best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.framework.run import unit_keys
from baselines.shared.concept_formulas import ConceptFormula, Operator
from milannotations.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

SPEC = MethodSpec(
    name="invert",
    version="1.0",
    kind="method",
    title="The formula over concepts whose presence in pictures the activations tell best (AUROC)",
    paper="Bykov et al. 2023, Labeling Neural Representations with Inverse Recognition",
    requires=("activations",),
)

LENGTH, BEAM = 3, 3
"""Concepts in a formula, formulas in the beam; the paper shows 1 to 3 and 1, its code has none."""

LEAST = 0.0035
"""The share of pictures that a formula holds in: alpha in the paper's figure 1, of 50,000."""

FEWEST = 10
"""And how many: of 500 pictures, alpha is two, and some formula holds in any two pictures."""

BYTES = 2**26
"""Of the activations under formulas that are multiplied at once."""


class InvertLabel(NamedTuple):
    """What was found for a unit.

    Attributes:
        formula: over literals: i < concepts is concept i, concepts + i is its negation.
        auroc: of activations, higher where the formula holds.
        share: of pictures that it holds in.
        p: two-sided, of the Mann-Whitney test of the activations where it holds against the
            others. It does not know that the formula was searched for.
    """

    formula: ConceptFormula
    auroc: float
    share: float
    p: float


class Invert:
    """Searches formulas for each unit by beam. A constant unit means nothing (abstained)."""

    spec = SPEC

    def __init__(self, pool: str, length: int, beam: int, least: float, fewest: int) -> None:
        self._pool = pool
        self._how: Any = {"length": length, "beam": beam, "least": least, "fewest": fewest}

    def describe(self, units: Any, context: Context) -> list[Description]:
        found = self.explain(units, context)
        said = list[Description]()
        for unit, each in zip(unit_keys(units), found, strict=True):
            if each is None:
                said.append(Description.abstained())
                continue
            text = each.formula.words(literals(context.probe_statistics(unit.network).concepts))
            said.append(Description.of(text, each.auroc))
        return said

    def explain(self, units: Any, context: Context) -> list[InvertLabel | None]:
        """Return what was found for each unit, in order; None for a unit that is constant.

        Raises:
            InputError: no such network or unit; no formula holds in as many pictures as asked.
        """
        members, found = unit_keys(units), list[InvertLabel | None]([None] * len(units))
        groups: dict[tuple[str, str], list[int]] = {}
        for i, unit in enumerate(members):
            groups.setdefault((unit.network, unit.layer), []).append(i)
        for (network, layer), places in groups.items():
            probing = context.probe_statistics(network)
            rows = [row for _, row in probing.locate([members[i] for i in places])]
            activations = probing.pooled_activations(self._pool)[layer][:, rows].numpy()
            answers = search(activations, probing.presence, **self._how)
            for i, each in zip(places, answers, strict=True):
                found[i] = each
        return found


def create(
    pool: str = "mean",
    length: int = LENGTH,
    beam: int = BEAM,
    least: float = LEAST,
    fewest: int = FEWEST,
) -> Invert:
    """Return the method.

    Args:
        pool: of a unit's activations on a picture: `mean` or `max` over positions.
        length: the most concepts in a formula.
        beam: formulas that are kept of each length.
        least: share of pictures that a formula holds in, and does not hold in, at least. (The
            public code allows none that holds in more than half; `sky` may.)
        fewest: the same, in pictures.

    Raises:
        InputError: a number that cannot be; no such pooling.
    """
    if pool not in ("mean", "max"):
        raise InputError(f"No pooling '{pool}'; expected mean or max.")
    if length < 1 or beam < 1 or fewest < 1 or not 0 <= least <= 0.5:
        raise InputError(
            f"length={length}, beam={beam}, fewest={fewest}, least={least}: expected at least 1 "
            "each, and a share from 0 to 0.5."
        )
    return Invert(pool, length, beam, least, fewest)


def literals(concepts: Sequence[tuple[str, str]]) -> list[str]:
    """Return names of concepts, then of their negations.

    Example:
        >>> literals([("dog", "object"), ("red", "color")])
        ['dog', 'red', 'not dog', 'not red']
    """
    names = [name for name, _ in concepts]
    return [*names, *(f"not {name}" for name in names)]


def auroc(activations: ArrayLike, presence: ArrayLike) -> Floats:
    """Return the AUROC of every unit for every concept; ties count half.

    Ranks of each unit are made once, and one matrix product sums them over the pictures of each
    concept; all sums are of halves, and exact.

    Args:
        activations: (image, unit).
        presence: bool (image, concept).

    Returns:
        (unit, concept); NaN for a concept that is in no picture, or in all.

    Example:
        >>> auroc([[1.0], [2.0], [2.0], [3.0]], [[False], [False], [True], [True]])
        array([[0.875]])
    """
    import numpy as np

    there = np.asarray(presence, np.float64)
    return _auroc(_ranks(activations) @ there, there.sum(0), len(there))


def search(
    activations: ArrayLike,
    presence: ArrayLike,
    *,
    length: int = LENGTH,
    beam: int = BEAM,
    least: float = LEAST,
    fewest: int = FEWEST,
) -> list[InvertLabel | None]:
    """Return the best formula of each unit that a beam search finds; None for a constant unit.

    Formulas join concepts and negations of concepts by AND and OR, from left to right, none twice.
    Shorter formulas stay in the beam until better ones come. Of formulas that hold in the same
    pictures, only the first found takes a place in the beam. Each of these sums follows from that
    over the pictures where both hold, so a step costs one product of the beam's formulas with all
    concepts.

    Args:
        activations: (image, unit).
        presence: bool (image, concept).
        length, beam, least, fewest: see `create`.

    Raises:
        InputError: no concept, nor the negation of one, holds in as many pictures as asked.
    """
    import numpy as np
    from scipy.stats import mannwhitneyu

    values, there = np.asarray(activations), np.asarray(presence, bool)
    moves = [int(u) for u in np.flatnonzero((values != values[:1]).any(0))]
    found = list[InvertLabel | None]([None] * values.shape[1])
    if not moves:
        return found
    images = len(there)
    few = max(fewest, int(np.ceil(round(least * images, 9))), 1)
    concepts = _Concepts(there, few)
    if not concepts.usable.any():
        raise InputError(
            f"Of {images:,} probe pictures, no concept is in {few:,} at least and out of {few:,} "
            "at least. Give more pictures, or ask for less: least=0, fewest=1."
        )
    step = max(1, BYTES // (8 * images * beam))
    for start in range(0, len(moves), step):
        part = moves[start : start + step]
        beams = _search(_ranks(values[:, part]), concepts, length, beam)
        for unit, (formula, score, mask) in zip(part, beams, strict=True):
            p = float(mannwhitneyu(values[mask, unit], values[~mask, unit]).pvalue)
            found[unit] = InvertLabel(formula.normalize(), score, float(mask.mean()), p)
    return found


class _Entry(NamedTuple):
    """A place in a beam."""

    formula: ConceptFormula
    score: float
    mask: Mask


class _Concepts:
    """Where literals hold, and which of them may stand alone."""

    def __init__(self, presence: Mask, few: int) -> None:
        import numpy as np

        self.count, self.images, self.few = presence.shape[1], len(presence), few
        self.presence = presence.astype(np.float64)
        self.masks = np.concatenate([presence, ~presence], 1).T
        self.counts = self.masks.sum(1).astype(np.float64)
        self.informs = (self.counts > 0) & (self.counts < self.images)
        self.usable = self.informs & self.admits(self.counts)

    def admits(self, counts: Floats) -> Mask:
        return (counts >= self.few) & (counts <= self.images - self.few)


def _search(ranks: Floats, concepts: _Concepts, length: int, width: int) -> list[_Entry]:
    """Return the best entry of each unit's beam, of ranks (unit, image)."""
    import numpy as np

    n, total = concepts.images, concepts.images * (concepts.images + 1) / 2
    own = ranks @ concepts.presence
    sums = np.concatenate([own, total - own], 1)
    alone = np.where(concepts.usable, _auroc(sums, concepts.counts, n), -1.0)
    beams = [_distinct([], _singles(scores, concepts), width) for scores in alone]
    for _ in range(1, length):
        masks = np.stack([entry.mask for beam in beams for entry in beam])
        of = np.repeat(np.arange(len(beams)), [len(beam) for beam in beams])
        # over the pictures where the formula and the concept hold: ranks, and how many
        both_sums = (masks * ranks[of]) @ concepts.presence
        both_counts = masks.astype(np.float64) @ concepts.presence
        mask_sums, mask_counts = (masks * ranks[of]).sum(1), masks.sum(1).astype(np.float64)
        both_sums = np.concatenate([both_sums, mask_sums[:, None] - both_sums], 1)
        both_counts = np.concatenate([both_counts, mask_counts[:, None] - both_counts], 1)
        either_sums = mask_sums[:, None] + sums[of] - both_sums
        either_counts = mask_counts[:, None] + concepts.counts - both_counts
        joined_sums = np.stack([both_sums, either_sums], 1)
        joined_counts = np.stack([both_counts, either_counts], 1)  # (entry, operator, literal)
        scores = np.where(
            concepts.admits(joined_counts) & concepts.informs,
            _auroc(joined_sums, joined_counts, n),
            -1.0,
        )
        before, beams, first = beams, list[list[_Entry]](), 0
        for beam in before:
            grown = _joined(beam, scores[first : first + len(beam)], concepts)
            beams.append(_distinct(beam, grown, width))
            first += len(beam)
    return [beam[0] for beam in beams]


def _singles(scores: Floats, concepts: _Concepts) -> Iterator[_Entry]:
    """Yield literals as entries, the best first."""
    for i in map(int, (-scores).argsort(kind="stable")):
        if scores[i] < 0:
            return
        yield _Entry(ConceptFormula(i), float(scores[i]), concepts.masks[i])


def _joined(beam: list[_Entry], scores: Floats, concepts: _Concepts) -> Iterator[_Entry]:
    """Yield entries joined with literals, the best first, of scores (entry, operator, literal)."""
    operators: tuple[Operator, Operator] = ("AND", "OR")
    for place, entry in enumerate(beam):
        for literal in entry.formula.concepts:
            i = literal % concepts.count
            scores[place, :, [i, i + concepts.count]] = -1.0
    for flat in map(int, (-scores).ravel().argsort(kind="stable")):
        place, rest = divmod(flat, 2 * 2 * concepts.count)
        which, literal = divmod(rest, 2 * concepts.count)
        score = float(scores[place, which, literal])
        if score < 0:
            return
        other, mask = concepts.masks[literal], beam[place].mask
        yield _Entry(
            beam[place].formula.append(operators[which], literal),
            score,
            mask & other if which == 0 else mask | other,
        )


def _distinct(beam: list[_Entry], new: Iterator[_Entry], width: int) -> list[_Entry]:
    """Return the best of a beam and of new entries, of equal ones the shorter, no mask twice."""
    kept, held = list[_Entry](), set[bytes]()
    old = list(beam)
    candidate = next(new, None)
    while len(kept) < width and (old or candidate is not None):
        if candidate is None or (old and old[0].score >= candidate.score):
            entry = old.pop(0)
        else:
            entry, candidate = candidate, next(new, None)
        held_in = entry.mask.tobytes()
        if held_in not in held:
            held.add(held_in)
            kept.append(entry)
    return kept


def _ranks(activations: ArrayLike) -> Floats:
    """Return ranks from 1, ties sharing their mean: (unit, image) of (image, unit)."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(activations, axis=0).T
    return ranks


def _auroc(sums: Floats, counts: Floats, images: int) -> Floats:
    """Return Mann-Whitney's U over its largest value, of sums of ranks."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (sums - counts * (counts + 1) / 2) / (counts * (images - counts))
    return found
