"""INVERT: the formula over concepts whose presence in images a unit's activations predict best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.framework.units import unit_keys
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
"""Concepts in a formula and formulas in the beam. The paper shows 1 to 3 concepts and a beam of 1;
its code has no defaults."""

MIN_SHARE = 0.0035
"""Least share of images in which a formula holds: alpha in the paper's figure 1, of 50,000."""

MIN_IMAGES = 10
"""Least number of images in which a formula holds. Of 500 images, `MIN_SHARE` is two, and some
formula holds in any two images."""

BLOCK_BYTES = 2**26
"""Bytes of the ranks under formulas that are multiplied at a time."""


class InvertLabel(NamedTuple):
    """Formula of a unit.

    Attributes:
        formula: formula over literals: i < concepts is concept i, concepts + i is its negation.
        auroc: AUROC of the activations; above .5 if they are higher where the formula holds.
        share: share of images in which the formula holds.
        p: two-sided p-value of the Mann-Whitney test of the activations where the formula holds
            against the others. It does not account for the search.
    """

    formula: ConceptFormula
    auroc: float
    share: float
    p: float


class Invert:
    """Describe each unit by a beam search over formulas. A constant unit is abstained."""

    spec = SPEC

    def __init__(self, pool: str, length: int, beam: int, least: float, fewest: int) -> None:
        self._pool = pool
        self._options: Any = {"length": length, "beam": beam, "least": least, "fewest": fewest}

    def describe(self, units: Any, context: Context) -> list[Description]:
        descriptions = list[Description]()
        for unit, label in zip(unit_keys(units), self.explain(units, context), strict=True):
            if label is None:
                descriptions.append(Description.abstained())
                continue
            names = literals(context.probe_statistics(unit.network).concepts)
            descriptions.append(Description.of(label.formula.words(names), label.auroc))
        return descriptions

    def explain(self, units: Any, context: Context) -> list[InvertLabel | None]:
        """Return the label of each unit, in order; None for a unit that is constant.

        Raises:
            InputError: unknown network or unit; no formula holds in enough images.
        """
        keys = unit_keys(units)
        labels = list[InvertLabel | None]([None] * len(keys))
        layers: dict[tuple[str, str], list[int]] = {}
        for i, unit in enumerate(keys):
            layers.setdefault((unit.network, unit.layer), []).append(i)
        for (network, layer), rows in layers.items():
            statistics = context.probe_statistics(network)
            columns = [index for _, index in statistics.locate([keys[i] for i in rows])]
            activations = statistics.pooled_activations(self._pool)[layer][:, columns].numpy()
            layer_labels = search(activations, statistics.presence, **self._options)
            for i, label in zip(rows, layer_labels, strict=True):
                labels[i] = label
        return labels


def create(
    pool: str = "mean",
    length: int = LENGTH,
    beam: int = BEAM,
    least: float = MIN_SHARE,
    fewest: int = MIN_IMAGES,
) -> Invert:
    """Return the method.

    Args:
        pool: pooling of a unit's activations over positions: `mean` or `max`.
        length: most concepts in a formula.
        beam: formulas kept of each length.
        least: least share of images in which a formula holds, and in which it does not hold. (The
            public code allows none that holds in more than half; `sky` may.)
        fewest: the same as a number of images.

    Raises:
        InputError: unknown pooling, or a number out of range.
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
    """Return the names of concepts, then those of their negations.

    Example:
        >>> literals([("dog", "object"), ("red", "color")])
        ['dog', 'red', 'not dog', 'not red']
    """
    names = [name for name, _ in concepts]
    return [*names, *(f"not {name}" for name in names)]


def auroc(activations: ArrayLike, presence: ArrayLike) -> Floats:
    """Return the AUROC of every unit for every concept; ties count half.

    Each unit's activations are ranked once, and one matrix product sums the ranks over the images
    of each concept. All sums are multiples of one half, and exact.

    Args:
        activations: (image, unit).
        presence: bool (image, concept).

    Returns:
        (unit, concept); NaN for a concept that is in no image, or in all.

    Example:
        >>> auroc([[1.0], [2.0], [2.0], [3.0]], [[False], [False], [True], [True]])
        array([[0.875]])
    """
    import numpy as np

    indicators = np.asarray(presence, np.float64)
    return _auroc(_ranks(activations) @ indicators, indicators.sum(0), len(indicators))


def search(
    activations: ArrayLike,
    presence: ArrayLike,
    *,
    length: int = LENGTH,
    beam: int = BEAM,
    least: float = MIN_SHARE,
    fewest: int = MIN_IMAGES,
) -> list[InvertLabel | None]:
    """Return the best formula of each unit by a beam search; None for a constant unit.

    Formulas join concepts and negations of concepts by AND and OR from left to right, each concept
    once. Shorter formulas stay in the beam until better ones push them out. Of several formulas
    that hold in the same images, only the first found takes a place in the beam.

    Args:
        activations: (image, unit).
        presence: bool (image, concept).
        length, beam, least, fewest: see `create`.

    Raises:
        InputError: no concept, and no negation of one, holds in enough images.
    """
    import numpy as np
    from scipy.stats import mannwhitneyu

    values, present = np.asarray(activations), np.asarray(presence, bool)
    varying = [int(unit) for unit in np.flatnonzero((values != values[:1]).any(0))]
    labels = list[InvertLabel | None]([None] * values.shape[1])
    if not varying:
        return labels
    n_images = len(present)
    # rounded first: 0.07 * 100 is more than 7
    minimum = max(fewest, int(np.ceil(round(least * n_images, 9))), 1)
    concepts = _Literals(present, minimum)
    if not concepts.usable.any():
        raise InputError(
            f"Of {n_images:,} probe images, no concept is in at least {minimum:,} and absent from "
            f"at least {minimum:,}. Give more images, or ask for less: --set least=0 "
            "--set fewest=1."
        )
    step = max(1, BLOCK_BYTES // (8 * n_images * beam))
    for start in range(0, len(varying), step):
        block = varying[start : start + step]
        entries = _beam_search(_ranks(values[:, block]), concepts, length, beam)
        for unit, (formula, score, mask) in zip(block, entries, strict=True):
            p = float(mannwhitneyu(values[mask, unit], values[~mask, unit]).pvalue)
            labels[unit] = InvertLabel(formula.normalize(), score, float(mask.mean()), p)
    return labels


class _Entry(NamedTuple):
    """Entry of a beam: a formula, its AUROC, and the images in which it holds."""

    formula: ConceptFormula
    score: float
    mask: Mask


class _Literals:
    """Images of all literals: concepts, then their negations.

    Args:
        presence: bool (image, concept).
        minimum: least number of images in which a formula holds, and in which it does not.

    Attributes:
        masks: bool (literal, image).
        counts: (literal,), images in which each literal holds.
        varying: (literal,), true if it holds in some images and not in all.
        usable: (literal,), true if it may be a formula by itself.
    """

    def __init__(self, presence: Mask, minimum: int) -> None:
        import numpy as np

        self.n_concepts, self.n_images, self.minimum = presence.shape[1], len(presence), minimum
        self.presence = presence.astype(np.float64)
        self.masks = np.concatenate([presence, ~presence], 1).T
        self.counts = self.masks.sum(1).astype(np.float64)
        self.varying = (self.counts > 0) & (self.counts < self.n_images)
        self.usable = self.varying & self.are_enough(self.counts)

    def are_enough(self, counts: Floats) -> Mask:
        """Return whether formulas that hold in so many images may be used."""
        return (counts >= self.minimum) & (counts <= self.n_images - self.minimum)


def _beam_search(ranks: Floats, literals: _Literals, length: int, width: int) -> list[_Entry]:
    """Return the best entry of each unit's beam.

    An AUROC needs only a formula's number of images and the sum of the ranks over them. Both
    follow for every join of a formula f with a concept c from the sums over the images of
    "f and c": those of "f and not c" are f's less these, and those of "f or c" are f's plus c's
    less these. So each step costs one matrix product of all formulas in the beams with all
    concepts, and no mask of a join is computed unless the join enters a beam.

    Args:
        ranks: (unit, image).
        literals: images of the literals.
        length: most literals in a formula.
        width: entries of a beam.
    """
    import numpy as np

    n_images = literals.n_images
    total = n_images * (n_images + 1) / 2  # sum of all ranks
    sums = ranks @ literals.presence
    sums = np.concatenate([sums, total - sums], 1)  # (unit, literal)
    scores = np.where(literals.usable, _auroc(sums, literals.counts, n_images), -1.0)
    beams = [_merge([], _single_literals(row, literals), width) for row in scores]
    for _ in range(1, length):
        # all entries of all beams in one matrix
        masks = np.stack([entry.mask for beam in beams for entry in beam])  # (entry, image)
        unit_of = np.repeat(np.arange(len(beams)), [len(beam) for beam in beams])
        masked_ranks = masks * ranks[unit_of]
        mask_sums, mask_counts = masked_ranks.sum(1), masks.sum(1).astype(np.float64)
        # AND with every concept, then with every negation: (entry, literal)
        and_sums = masked_ranks @ literals.presence
        and_counts = masks.astype(np.float64) @ literals.presence
        and_sums = np.concatenate([and_sums, mask_sums[:, None] - and_sums], 1)
        and_counts = np.concatenate([and_counts, mask_counts[:, None] - and_counts], 1)
        or_sums = mask_sums[:, None] + sums[unit_of] - and_sums
        or_counts = mask_counts[:, None] + literals.counts - and_counts
        joined_sums = np.stack([and_sums, or_sums], 1)  # (entry, operator, literal)
        joined_counts = np.stack([and_counts, or_counts], 1)
        scores = np.where(
            literals.are_enough(joined_counts) & literals.varying,
            _auroc(joined_sums, joined_counts, n_images),
            -1.0,
        )
        extended, first = list[list[_Entry]](), 0
        for beam in beams:
            joins = _joins(beam, scores[first : first + len(beam)], literals)
            extended.append(_merge(beam, joins, width))
            first += len(beam)
        beams = extended
    return [beam[0] for beam in beams]


def _single_literals(scores: Floats, literals: _Literals) -> Iterator[_Entry]:
    """Yield the usable literals as entries, the best first."""
    for i in map(int, (-scores).argsort(kind="stable")):
        if scores[i] < 0:
            return
        yield _Entry(ConceptFormula(i), float(scores[i]), literals.masks[i])


def _joins(beam: list[_Entry], scores: Floats, literals: _Literals) -> Iterator[_Entry]:
    """Yield the joins of a beam's entries with literals, the best first.

    Args:
        beam: entries.
        scores: (entry, operator, literal); -1 is no join. Changed in place.
        literals: images of the literals.
    """
    operators: tuple[Operator, Operator] = ("AND", "OR")
    n = literals.n_concepts
    # no concept twice, neither as itself nor negated
    for index, entry in enumerate(beam):
        for literal in entry.formula.concepts:
            concept = literal % n
            scores[index, :, [concept, concept + n]] = -1.0
    for flat in map(int, (-scores).ravel().argsort(kind="stable")):
        # flat index -> (entry, operator, literal)
        index, rest = divmod(flat, len(operators) * 2 * n)
        operator, literal = divmod(rest, 2 * n)
        score = float(scores[index, operator, literal])
        if score < 0:
            return
        mask, other = beam[index].mask, literals.masks[literal]
        yield _Entry(
            beam[index].formula.append(operators[operator], literal),
            score,
            mask & other if operators[operator] == "AND" else mask | other,
        )


def _merge(beam: list[_Entry], new: Iterator[_Entry], width: int) -> list[_Entry]:
    """Merge a beam with new entries, both sorted; entries with the same images are kept once.

    Of equal scores the old entry comes first, which is the shorter formula. `new` is read only as
    far as needed.
    """
    merged, masks = list[_Entry](), set[bytes]()
    old = list(beam)
    candidate = next(new, None)
    while len(merged) < width and (old or candidate is not None):
        if candidate is None or (old and old[0].score >= candidate.score):
            entry = old.pop(0)
        else:
            entry, candidate = candidate, next(new, None)
        key = entry.mask.tobytes()
        if key not in masks:
            masks.add(key)
            merged.append(entry)
    return merged


def _ranks(activations: ArrayLike) -> Floats:
    """Return each unit's ranks of the images, from 1, ties with their mean: (unit, image)."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(activations, axis=0).T
    return ranks


def _auroc(sums: Floats, counts: Floats, n_images: int) -> Floats:
    """Return AUROCs from sums of ranks: Mann-Whitney's U over its largest value.

    Args:
        sums: sums of the ranks of the images in which a formula holds.
        counts: numbers of these images.
        n_images: number of all images.
    """
    import numpy as np

    # n of the N images hold: U = sum - n (n + 1) / 2, at most n (N - n)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: Floats = (sums - counts * (counts + 1) / 2) / (counts * (n_images - counts))
    return values
