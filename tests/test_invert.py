"""INVERT: AUROC against scikit-learn, beams against all formulas, units that are formulas."""

import itertools

import numpy as np
import pytest
from clips import Planted, probing, rows
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

import baselines
from baselines import Context, Description
from baselines.invert import InvertLabel, auroc, create, literals, search
from baselines.shared.concept_formulas import ConceptFormula
from milannotations.errors import InputError


def made(images=80, concepts=6, units=5, seed=0, ties=True):
    """Return activations with ties, and concepts that depend on them."""
    draw = np.random.default_rng(seed)
    presence = draw.random((images, concepts)) < draw.uniform(0.1, 0.7, concepts)
    activations = draw.normal(size=(images, units)) + presence @ draw.normal(size=(concepts, units))
    if ties:
        activations = np.maximum(np.round(activations, 1), 0)
    return activations.astype(np.float32), presence


def masks_of(presence):
    return np.concatenate([presence, ~presence], 1).T


def run(method, probe, units, **how):
    return baselines.framework.run.run(method, rows(probe.network, units), context(probe), **how)


def context(*probes):
    return Context(probe_statistics={each.network: each for each in probes})


# ---- AUROC


@pytest.mark.parametrize("ties", [True, False])
def test_auroc_is_scikit_learn_s(ties):
    activations, presence = made(ties=ties)
    found = auroc(activations, presence)
    for unit, concept in np.ndindex(found.shape):
        own = roc_auc_score(presence[:, concept], activations[:, unit])
        assert found[unit, concept] == pytest.approx(own, abs=1e-12)
    if ties:
        assert (activations == 0).mean() > 0.2


def test_auroc_of_a_concept_that_is_everywhere_or_nowhere_is_unknown():
    found = auroc([[1.0], [2.0]], [[True, False, True], [True, False, False]])
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 0.0]])


@pytest.mark.parametrize("length", [1, 2, 3])
def test_what_is_found_is_what_it_says(length):
    activations, presence = made()
    for unit, found in enumerate(search(activations, presence, length=length)):
        holds, values = found.formula.mask(masks_of(presence)), activations[:, unit]
        assert found.formula.length <= length
        assert found.auroc == pytest.approx(roc_auc_score(holds, values), abs=1e-12)
        assert found.p == mannwhitneyu(values[holds], values[~holds]).pvalue
        assert found.share == holds.mean()
        used = [each % presence.shape[1] for each in found.formula.concepts]
        assert len(set(used)) == len(used)


# ---- the search


def exhaustive(values, presence, few):
    """Return the largest AUROC of all formulas of one or two literals, one by one."""
    masks = masks_of(presence)
    joined = [
        each
        for one, other in itertools.combinations(masks, 2)
        for each in (one & other, one | other)
    ]
    return max(
        roc_auc_score(mask, values)
        for mask in [*masks, *joined]
        if few <= mask.sum() <= len(mask) - few
    )


@pytest.mark.parametrize("few", [1, 12])
def test_a_beam_of_all_literals_finds_the_best_pair(few):
    activations, presence = made(concepts=4, units=3)
    wide = search(activations, presence, length=2, beam=8, least=0.0, fewest=few)
    narrow = search(activations, presence, length=2, least=0.0, fewest=few)
    for unit, (found, less) in enumerate(zip(wide, narrow, strict=True)):
        best = exhaustive(activations[:, unit], presence, few)
        assert found.auroc == pytest.approx(best, abs=1e-12)
        assert less.auroc <= found.auroc


def slow(values, presence, length, beam, few):
    """Return the AUROC of a plainly written beam search."""
    masks = masks_of(presence)
    concepts = presence.shape[1]
    joins = {"AND": np.logical_and, "OR": np.logical_or}

    def best(candidates):
        kept, seen = [], set()
        for score, formula, mask in sorted(candidates, key=lambda each: -each[0]):
            if mask.tobytes() not in seen and few <= mask.sum() <= len(mask) - few:
                seen.add(mask.tobytes())
                kept.append((score, formula, mask))
        return kept[:beam]

    def scored(formula, mask):
        inside = 0 < mask.sum() < len(mask)
        return (roc_auc_score(mask, values) if inside else -1.0, formula, mask)

    kept = best([scored(ConceptFormula(i), mask) for i, mask in enumerate(masks)])
    for _ in range(1, length):
        grown = [
            scored(formula.append(operator, i), joins[operator](held, mask))
            for _, formula, held in kept
            for operator in joins
            for i, mask in enumerate(masks)
            if i % concepts not in {c % concepts for c in formula.concepts}
        ]
        kept = best([*kept, *grown])
    return kept[0][0]


@pytest.mark.parametrize(("length", "beam", "few"), [(1, 1, 1), (2, 3, 5), (3, 3, 5), (4, 2, 10)])
def test_the_search_is_a_plain_beam_search(length, beam, few):
    activations, presence = made(units=2, seed=3)
    fast = search(activations, presence, length=length, beam=beam, least=0.0, fewest=few)
    plain = [slow(values, presence, length, beam, few) for values in activations.T]
    np.testing.assert_allclose([each.auroc for each in fast], plain, atol=1e-12)


def test_longer_formulas_and_wider_beams_are_never_worse():
    activations, presence = made(images=200, concepts=8, units=8, seed=5)
    scores = [
        [each.auroc for each in search(activations, presence, length=length)]
        for length in (1, 2, 3, 4)
    ]
    for shorter, longer in itertools.pairwise(scores):
        assert all(a <= b for a, b in zip(shorter, longer, strict=True))


def test_the_least_and_the_most_images():
    presence = np.zeros((100, 2), bool)
    presence[:2, 0], presence[:30, 1] = True, True
    activations = np.arange(100.0)[::-1, None]
    rare, common = (search(activations, presence, length=1, fewest=n)[0] for n in (1, 10))
    assert (rare.formula, rare.auroc, rare.share) == (ConceptFormula(0), 1.0, 0.02)
    assert (common.formula, common.share) == (ConceptFormula(1), 0.3)
    share = search(activations, presence, length=1, least=0.05, fewest=1)[0]
    assert share.formula == ConceptFormula(1)
    with pytest.raises(
        InputError, match=r"100 probe images.*absent from at least 40.*least=0 --set fewest=1"
    ):
        search(activations, presence, fewest=40)


def test_of_equal_formulas_the_shorter_is_said():
    presence = np.repeat([[True, True, False], [False, False, True]], 20, axis=0)
    activations = np.repeat([[2.0], [1.0]], 20, axis=0)
    found = search(activations, presence)[0]
    assert (found.formula, found.auroc) == (ConceptFormula(0), 1.0)


# ---- units that compute a formula


NAMES = ["dog", "red-c", "water", "swimming_pool", "cat"]


def worlds(images=240, seed=1):
    return np.random.default_rng(seed).random((images, len(NAMES))) < 0.4


FORMULAS = {
    "cat": lambda p: p[:, 4],
    "not water": lambda p: ~p[:, 2],
    "dog and red": lambda p: p[:, 0] & p[:, 1],
    "swimming pool or cat": lambda p: p[:, 3] | p[:, 4],
    "dog and not water": lambda p: p[:, 0] & ~p[:, 2],
    "dog or cat, and not water": lambda p: (p[:, 0] | p[:, 4]) & ~p[:, 2],
    "dog and red, or cat": lambda p: (p[:, 0] & p[:, 1]) | p[:, 4],
}


def planted(seed=1):
    presence = worlds()
    draw = np.random.default_rng(seed)
    units = np.stack([holds(presence) for holds in FORMULAS.values()], 1) + 0.0
    return Planted({"conv": units + draw.uniform(0, 0.5, units.shape)}, presence, NAMES)


def test_planted_formulas_are_named():
    answers = run(create(beam=10), planted(), range(len(FORMULAS)))
    assert [each.text for each in answers] == list(FORMULAS)
    assert {each.senses[0][1] for each in answers} == {1.0}


def test_a_network_that_computes_concepts():
    presence = worlds(60)
    own = np.eye(5)
    net = probing([own[0], own[2], own[0] + own[4], own[0] - own[2], 0 * own[0]], presence, NAMES)
    for pool in ("mean", "max"):
        answers = run(create(pool=pool), net, range(5))
        assert [each.text for each in answers[:2]] == ["dog", "water"]
        assert answers[4] == Description.abstained()
        assert all(each.senses[0][1] == 1.0 for each in answers[:2])
        assert "dog" in answers[2].text
        assert "cat" in answers[2].text
        assert "dog" in answers[3].text
        assert "not water" in answers[3].text


def test_pooling_is_what_was_asked_for(monkeypatch):
    asked, probe = [], planted()
    monkeypatch.setattr(
        type(probe), "pooled_activations", lambda self, how="mean": asked.append(how) or self._given
    )
    run(create(), probe, [0])
    run(create(pool="max"), probe, [0])
    assert asked == ["mean", "max"]


# ---- the contract


def test_batches_order_and_repetition_change_nothing():
    activations, presence = made(units=9, seed=2)
    probe = Planted({"conv": activations}, presence)
    method, units = create(fewest=3), [3, 0, 8, 1, 2, 7, 5, 4, 6]
    answers = run(method, probe, units)
    assert run(method, probe, units, batch_size=2) == answers
    assert run(create(fewest=3), probe, units[::-1])[::-1] == answers
    assert run(method, probe, []) == []


def test_units_of_several_networks_and_layers():
    presence = worlds()
    one = Planted(
        {"a": presence[:, :2] + 0.0, "b": presence[:, 2:3] + 0.0}, presence, NAMES, "first"
    )
    two = Planted({"a": presence[:, 4:] + 0.0}, presence, NAMES, "second")
    units = [("first", "b", 0), ("second", "a", 0), ("first", "a", 1), ("first", "a", 0)]
    from datasets import concatenate_datasets

    asked = concatenate_datasets([rows(n, [u], layer) for n, layer, u in units])
    answers = baselines.framework.run.run(create(), asked, context(one, two))
    assert [each.text for each in answers] == ["water", "cat", "red", "dog"]


def test_a_probe_of_one_image():
    probe = Planted({"conv": [[1.0, 0.0]]}, [[True, False]])
    assert run(create(), probe, [0, 1]) == [Description.abstained()] * 2


def test_explain_gives_p_values_and_what_it_was_chosen_on():
    probe, method = planted(), create()
    given = context(probe)
    found = method.explain(rows("net", [0, 2]), given)
    assert all(isinstance(each, InvertLabel) and each.p < 1e-20 for each in found)
    assert given.chosen_on == {"net": probe.source}
    assert probe.source["images"]["probe"]["sha256"] == "0" * 64
    names = literals(probe.concepts)
    assert found[1].formula.symbols(names) == "(dog AND red-c)"


def test_what_a_user_can_mend():
    with pytest.raises(InputError, match="No pooling 'sum'"):
        create(pool="sum")
    for wrong in ({"length": 0}, {"beam": 0}, {"least": 0.6}, {"fewest": 0}):
        with pytest.raises(InputError, match="expected at least 1"):
            create(**wrong)
    with pytest.raises(InputError, match="probe images"):
        baselines.framework.run.run(create(), rows("net", [0]), Context())
    with pytest.raises(InputError, match="'other' on a probe"):
        baselines.framework.run.run(create(), rows("other", [0]), context(planted()))
    with pytest.raises(InputError, match="not among the units"):
        run(create(), planted(), [99])
