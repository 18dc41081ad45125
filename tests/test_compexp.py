"""Formulas over concepts, the tally of concept sets, and the search."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.shared import concept_set_counts, formula_search
from baselines.shared.concept_formulas import OPERATORS, ConceptFormula
from baselines.shared.concept_set_counts import ConceptSetTally
from baselines.shared.formula_search import FormulaSearch
from milannotations import InputError

SIDE = 16
NAMES = ["red", "circle", "dog", "cat", "water", "boat", "sky_blue", "tree", "car-s", "head"]


def rectangles(images, concepts, seed=0, side=SIDE, planes=3, each=6):
    """Return label planes (image, plane, side, side) of rectangles, some of which overlap."""
    draw = np.random.default_rng(seed)
    made = np.zeros((images, planes, side, side), np.int32)
    for image in made:
        for plane, concept in zip(itertools.cycle(image), draw.permutation(concepts)[:each] + 1):
            (top, left), (h, w) = draw.integers(0, side // 2, 2), draw.integers(2, side, 2)
            plane[top : top + h, left : left + w] = concept
    return torch.from_numpy(made)


def masks_of(planes, concepts):
    """Return where each concept is: bool (concept, position of all images)."""
    return np.stack([(planes == c + 1).any(1).numpy().ravel() for c in range(concepts)])


def activity(active, planes, batch=None):
    """Return the tally's result for units with the given active positions, (unit, position)."""
    images, _, h, w = planes.shape
    maps = torch.from_numpy(active).float().reshape(-1, images, h, w).transpose(0, 1)
    tally = ConceptSetTally(torch.full((len(active),), 0.5), (h, w))
    for ids in torch.arange(images).split(batch or images):
        tally.update(ids, maps[ids], planes[ids])
    return tally.result()


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def plain(active, masks, length, beam):
    """Search as `FormulaSearch.beam` does, with one boolean array per formula."""

    def rank(pair):
        return -pair[1], pair[0].length, pair[0]

    kept = [(ConceptFormula(c), iou(active, mask)) for c, mask in enumerate(masks)]
    kept = sorted([pair for pair in kept if pair[1] > 0], key=rank)[:beam]
    for size in range(2, length + 1):
        news = {}
        for parent, _ in kept:
            if parent.length < size - 1:
                continue
            own = parent.mask(masks)
            for operator, concept in itertools.product(OPERATORS, range(len(masks))):
                formula = parent.append(operator, concept)
                found = formula.mask(masks)
                same = (found == own).all() or (found == masks[concept]).all()
                if concept in parent.concepts or same or not (found & active).any():
                    continue
                if operator == "AND NOT" and not found.any():
                    continue
                news[formula.normalize()] = iou(active, found)
        kept = sorted([*kept, *news.items()], key=rank)[:beam]
    return kept[0] if kept else None


@pytest.fixture(scope="module")
def world():
    planes = rectangles(40, len(NAMES), seed=1)
    return planes, masks_of(planes, len(NAMES))


@pytest.mark.parametrize(
    "formula",
    [
        ConceptFormula(3),
        ConceptFormula(0, (("AND", 1),)),
        ConceptFormula(2, (("OR", 3),)),
        ConceptFormula(4, (("AND NOT", 5),)),
        ConceptFormula(0, (("OR", 1), ("OR", 2))),
        ConceptFormula(2, (("OR", 3), ("AND NOT", 4))),
        ConceptFormula(6, (("AND NOT", 7), ("AND NOT", 8))),
        ConceptFormula(5, (("AND NOT", 2), ("OR", 9))),
    ],
    ids=lambda formula: formula.symbols(NAMES),
)
def test_planted_formulas_are_recovered(world, formula):
    planes, masks = world
    active = formula.mask(masks)[None]
    search = FormulaSearch(activity(active, planes), len(NAMES))
    for found in (search.beam(0), search.exact(0, formula.length)):
        assert found.iou == 1
        assert (found.formula.mask(masks) == active[0]).all()
        assert found.formula == formula.normalize()


def test_a_beam_may_miss_what_no_shorter_formula_leads_to(world):
    """Most of it is "tree", so that "red and circle" alone is soon out of a narrow beam."""
    planes, masks = world
    formula = ConceptFormula(0, (("AND", 1), ("OR", 7)))
    search = FormulaSearch(activity(formula.mask(masks)[None], planes), len(NAMES))
    assert search.beam(0).iou < 1
    assert search.beam(0, beam=200)[:2] == search.exact(0, 3)[:2] == (formula, 1.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_search_is_that_of_boolean_arrays(seed):
    draw = np.random.default_rng(seed)
    concepts = 8
    planes = rectangles(12, concepts, seed, planes=int(draw.integers(1, 4)))
    masks = masks_of(planes, concepts)
    noise = draw.random((6, masks.shape[1])) < 0.03
    planted = [
        ConceptFormula(*draw.integers(0, concepts, 1).tolist()).append("OR", 1).mask(masks)
        for _ in range(6)
    ]
    active = noise ^ (np.stack(planted) & (draw.random(noise.shape) < 0.6))
    search = FormulaSearch(activity(active, planes), concepts)
    for unit, own in enumerate(active):
        for length, beam in ((1, 1), (2, 3), (3, 5), (4, 2)):
            found = search.beam(unit, length, beam)
            formula, best = plain(own, masks, length, beam)
            assert (found.formula, found.iou) == (formula, best)
            assert found.iou == iou(own, found.formula.mask(masks))


@pytest.mark.parametrize("seed", range(4))
def test_the_beam_finds_the_best_of_length_two_and_the_bound_hides_none(seed):
    draw = np.random.default_rng(seed)
    concepts = 9
    planes = rectangles(15, concepts, seed)
    masks = masks_of(planes, concepts)
    active = draw.random((8, masks.shape[1])) < 0.02
    active[4:] &= masks[:4]
    search = FormulaSearch(activity(active, planes), concepts)
    for unit, own in enumerate(active):
        every = [ConceptFormula(c) for c in range(concepts)]
        every += [
            one.append(operator, c)
            for one in every
            for operator in OPERATORS
            for c in range(concepts)
        ]
        best = max(iou(own, formula.mask(masks)) for formula in every)
        exact = search.exact(unit)
        assert exact.iou == best
        # the whole breadth is exhaustive; five of nine concepts find the same here
        assert search.beam(unit, 2, concepts)[:2] == exact[:2]
        assert search.beam(unit, 2).iou == best
        assert search.exact(unit, 1).iou == max(iou(own, mask) for mask in masks)


def test_exact_at_length_three_is_exhaustive_and_looks_at_less():
    concepts = 5
    planes = rectangles(10, concepts, 3)
    masks = masks_of(planes, concepts)
    draw = np.random.default_rng(0)
    active = (draw.random((4, masks.shape[1])) < 0.3) & (masks[:4] | masks[1:])
    search = FormulaSearch(activity(active, planes), concepts)
    steps = list(itertools.product(OPERATORS, range(concepts)))
    every = [
        ConceptFormula(first, (*joins,))
        for first in range(concepts)
        for count in range(3)
        for joins in itertools.product(steps, repeat=count)
    ]
    for unit, own in enumerate(active):
        found = search.exact(unit, 3)
        assert found.iou == max(iou(own, formula.mask(masks)) for formula in every)
        assert found.n_tried < len(every)
        assert search.beam(unit, 3).iou <= found.iou


def test_the_bound_spares_most_joins():
    concepts = 40
    planes = rectangles(60, concepts, 5)
    masks = masks_of(planes, concepts)
    active = (masks[3] & ~masks[9])[None]
    found = FormulaSearch(activity(active, planes), concepts).exact(0)
    assert found.formula == ConceptFormula(3, (("AND NOT", 9),))
    assert found.n_tried < 3 * concepts * concepts / 4


def test_ties_go_to_the_shortest_and_then_to_the_first_concepts():
    planes = torch.tensor([[[[1, 2, 3, 3]], [[4, 5, 0, 0]]]], dtype=torch.int32)
    active = np.array([[True, False, False, False], [True, True, False, False]])
    search = FormulaSearch(activity(active, planes), 5)
    assert search.beam(0).formula == ConceptFormula(0)  # 3, the fourth concept, is as good
    assert search.beam(1).formula == ConceptFormula(0, (("OR", 1),))
    assert search.exact(1).formula == ConceptFormula(0, (("OR", 1),))


def test_what_is_never_active_or_nowhere_a_concept_has_no_formula():
    planes = torch.tensor([[[[1, 0]]]], dtype=torch.int32)
    active = np.array([[False, False], [False, True]])
    search = FormulaSearch(activity(active, planes), 1)
    assert [search.beam(unit) for unit in (0, 1)] == [None, None]
    assert [search.exact(unit) for unit in (0, 1)] == [None, None]


def test_chosen_concepts_alone_stand_in_formulas(world):
    planes, masks = world
    active = (masks[2] | masks[5])[None]
    search = FormulaSearch(activity(active, planes), len(NAMES), [1, 5, 7])
    found = search.beam(0)
    assert set(found.formula.concepts) <= {1, 5, 7}
    assert found.iou == iou(active[0], found.formula.mask(masks))
    assert search.exact(0, 3).iou >= found.iou


def test_areas_are_shared_between_units_and_forgotten_when_there_are_many(world, monkeypatch):
    planes, masks = world
    active = np.stack([masks[0] & masks[1], masks[2], masks[0] | masks[4]])
    made = activity(active, planes)
    search = FormulaSearch(made, len(NAMES))
    found = [search.beam(unit) for unit in range(3)]
    monkeypatch.setattr(formula_search, "CACHE_BYTES", 100)
    forgetful = FormulaSearch(made, len(NAMES))
    assert [forgetful.beam(unit) for unit in (2, 1, 0)] == found[::-1]
    assert len(forgetful._joint_areas) < len(search._joint_areas)


# ---- the tally


def same(one, other):
    assert vars(one).keys() == vars(other).keys()
    for name, values in vars(one).items():
        assert np.array_equal(values, vars(other)[name]), name


def layer(images=9, units=5, side=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, units, side, side, generator=generator)


def tally(parts, planes, maps, thresholds):
    made = ConceptSetTally(thresholds, tuple(planes.shape[2:]))
    for ids in parts:
        made.update(ids, maps[ids], planes[ids])
    return made


def test_the_tally_counts_what_masks_say():
    from milannotations.exemplars.tallies.masks import masks

    planes, maps, thresholds = rectangles(9, 6), layer(), torch.linspace(0.5, 2, 5)
    found = tally([torch.arange(9)], planes, maps, thresholds).result()
    whole = [
        masks(maps[:, unit], thresholds[unit].expand(9), (SIDE, SIDE)).numpy().ravel()
        for unit in range(5)
    ]
    search = FormulaSearch(found, 6)
    concepts = masks_of(planes, 6)
    for unit, own in enumerate(whole):
        atoms, counts = found.of_unit(unit)
        assert counts.sum() == own.sum()
        assert (search._view(unit).inside == (concepts & own).sum(1)).all()
        assert len(set(atoms.tolist())) == len(atoms)
    assert found.areas.sum() == planes[:, 0].numel()
    assert (search._areas == concepts.sum(1)).all()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(9)), st.integers(1, 9), st.integers(0, 9))
def test_neither_order_batches_nor_parts_matter(order, size, cut):
    planes, maps, thresholds = rectangles(9, 6), layer(), torch.linspace(0.5, 2, 5)
    expected = tally([torch.arange(9)], planes, maps, thresholds).result()
    order = torch.tensor(order)
    one = tally(order[:cut].split(size) if cut else [], planes, maps, thresholds)
    two = tally(order[cut:].split(size) if cut < 9 else [], planes, maps, thresholds)
    again = ConceptSetTally(thresholds, (SIDE, SIDE))
    again.load_state_dict(two.state_dict())
    one.merge(again)
    same(one.result(), expected)
    third = ConceptSetTally(thresholds, (SIDE, SIDE))
    third.load_state_dict(one.state_dict())
    same(third.result(), expected)


def test_a_part_with_an_empty_batch_alone_can_be_merged():
    planes, maps, thresholds = rectangles(9, 6), layer(), torch.linspace(0.5, 2, 5)
    whole = tally([torch.arange(9)], planes, maps, thresholds)
    expected = whole.result()
    whole.merge(tally([torch.arange(0)], planes, maps, thresholds))
    same(whole.result(), expected)


def test_counts_that_wait_are_added_in_time(monkeypatch):
    planes, maps, thresholds = rectangles(9, 6), layer(), torch.linspace(0.5, 2, 5)
    expected = tally([torch.arange(9)], planes, maps, thresholds)
    monkeypatch.setattr(concept_set_counts, "MAX_PENDING", 10)
    made = tally(torch.arange(9).split(1), planes, maps, thresholds)
    same(made.result(), expected.result())
    assert made.nbytes == expected.nbytes <= made.estimate(5, 4, 4, 9, 6)


def test_planes_of_many_concepts_and_in_another_order_say_the_same():
    numbers = torch.tensor([[5, 1 << 20, 7, 1 << 19], [1 << 20, 5, 7, 0]], dtype=torch.int32)
    planes = torch.zeros(1, 6, 1, 4, dtype=torch.int32)
    planes[0, 1, 0], planes[0, 3, 0] = numbers
    planes[0, 5, 0, 3] = 1 << 20
    planes[0, 4, 0, 0] = planes[0, 0, 0, 1] = 1
    found = activity(np.ones((1, 4), bool), planes)
    assert sorted(found.areas.tolist()) == [1, 1, 2]
    assert found.counts.sum() == 4


@pytest.mark.parametrize(
    ("planes", "says"),
    [
        (None, "none came"),
        (torch.zeros(2, 1, 8, 8), "float32"),
        (torch.zeros(2, 1, 8, 9, dtype=torch.int32), r"\(2, plane, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int32), r"\(2, plane, 8, 8\)"),
    ],
)
def test_what_the_tally_cannot_take(planes, says):
    with pytest.raises(InputError, match=says):
        ConceptSetTally(torch.zeros(3), (8, 8)).update(
            torch.arange(2), torch.zeros(2, 3, 2, 2), planes
        )


def test_other_mistakes_with_the_tally():
    made = ConceptSetTally(torch.zeros(3), (8, 8))
    planes = torch.zeros(1, 1, 8, 8, dtype=torch.int32)
    with pytest.raises(InputError, match="2 units came with 3 thresholds"):
        made.update(torch.arange(1), torch.zeros(1, 2, 2, 2), planes)
    with pytest.raises(InputError, match="No image"):
        made.result()
    with pytest.raises(InputError, match="differ in 'size'"):
        made.merge(ConceptSetTally(torch.zeros(3), (8, 9)))
    with pytest.raises(InputError, match="finite"):
        ConceptSetTally(torch.tensor([float("nan")]), (8, 8))


# ---- formulas


@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.sampled_from(OPERATORS), st.integers(0, 4)), max_size=4),
)
def test_the_normal_form_means_the_same(first, steps):
    formula = ConceptFormula(first, tuple(steps))
    masks = np.array(list(itertools.product([False, True], repeat=5))).T
    normal = formula.normalize()
    assert (normal.mask(masks) == formula.mask(masks)).all()
    assert normal.normalize() == normal
    packed = np.packbits(masks, axis=1)
    assert (np.unpackbits(formula.mask(packed)).astype(bool) == formula.mask(masks)).all()
    assert (formula.mask(torch.from_numpy(masks)).numpy() == formula.mask(masks)).all()


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (ConceptFormula(8), "car"),
        (ConceptFormula(0, (("AND", 1),)), "red and circle"),
        (ConceptFormula(2, (("OR", 3),)), "dog or cat"),
        (ConceptFormula(4, (("AND NOT", 5),)), "water and not boat"),
        (ConceptFormula(2, (("OR", 3), ("OR", 6))), "dog, cat or sky blue"),
        (ConceptFormula(2, (("OR", 3), ("AND NOT", 4))), "dog or cat, and not water"),
        (ConceptFormula(0, (("AND", 1), ("OR", 7))), "red and circle, or tree"),
        (ConceptFormula(0, (("AND", 1), ("AND NOT", 7))), "red and circle and not tree"),
        (ConceptFormula(0, (("OR", 1), ("AND", 2), ("OR", 3))), "red or circle, and dog, or cat"),
    ],
)
def test_formulas_in_words(formula, text):
    assert formula.words(NAMES) == text
