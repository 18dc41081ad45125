"""Tallies: same bits for any order, batches and merges; quantiles against exact sorting."""

import dataclasses
import io
import math

import golden
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milannotations.errors import InputError
from milannotations.exemplars.images import batches as loading
from milannotations.exemplars.tallies import overlap, sampling, sparse_masks, validation
from milannotations.exemplars.tallies import quantile as quantiles
from milannotations.exemplars.tallies.base import BaseTally
from milannotations.exemplars.tallies.masks import masks, upsample
from milannotations.exemplars.tallies.overlap import Overlap
from milannotations.exemplars.tallies.pooled import Pooled
from milannotations.exemplars.tallies.quantile import Quantile
from milannotations.exemplars.tallies.sparse_masks import active_pixels
from milannotations.exemplars.tallies.topk import TopK
from milannotations.exemplars.tallies.validation import NonFiniteError

SHAPE = (3, 4, 5)
"""Units, height and width of most streams."""

IMAGES = 40


def stream(kind, images=IMAGES, shape=SHAPE, seed=0):
    """Return activations (image, unit, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    size = (images, *shape)
    normal = torch.randn(size, generator=generator)
    if kind == "normal":
        return normal
    if kind == "ties":
        return torch.randint(-1, 2, size, generator=generator).float()
    if kind == "zeros":  # of both signs
        return torch.where(normal > 0, 0.0, -0.0)
    if kind == "relu":
        return (normal - 1).relu()
    if kind == "negative":
        return -normal.abs() - 1
    if kind == "denormal":
        return normal * 1e-42
    if kind == "heavy":
        return normal.sign() * (normal.abs() * 20).clamp(max=80).exp()
    raise AssertionError(kind)


KINDS = ("normal", "ties", "zeros", "relu", "negative", "denormal", "heavy")


def concepts(images=IMAGES, seed=0):
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.rand(images, 4, 9, 7, generator=generator) > 0.7


def as_planes(images=IMAGES, seed=0, count=4):
    """Return label planes (image, plane, H, W); a pixel may have the same label in two."""
    generator = torch.Generator().manual_seed(seed + 1)
    labels = torch.randint(-2, count + 1, (images, 3, 9, 7), generator=generator)
    return labels.clamp(min=0).int()


def one_hot(planes, count=4):
    """Return bool (image, concept, H, W) of label planes."""
    return torch.stack([(planes == i + 1).any(1) for i in range(count)], dim=1)


MAKERS = {
    "top": lambda: TopK(5),
    "quantile": lambda: Quantile(0.9, images=IMAGES),
    "sampled": lambda: Quantile(0.9, images=IMAGES, seed=3, sample=7 * IMAGES),
    "low": lambda: Quantile(0.1, images=IMAGES, sample=7 * IMAGES),
    "mean": lambda: Pooled("mean"),
    "max": lambda: Pooled("max"),
    "overlap": lambda: Overlap(torch.tensor([0.0, 0.5, -1.0])),
    "planes": lambda: Overlap(torch.tensor([0.0, 0.5, -1.0]), concepts=4),
}


def marks_for(tally, images=IMAGES):
    return as_planes(images) if getattr(tally, "concepts", None) else concepts(images)


def feed(tally, ids, activations, batch=None):
    """Update a tally with the images of `ids`, in this order."""
    marks = marks_for(tally, len(activations))
    for some in torch.tensor(list(ids), dtype=torch.int64).split(batch or max(len(ids), 1)):
        tally.update(some, activations[some], marks[some])
    return tally


def reloaded(make, tally):
    """Return a copy of a tally, saved to a file and loaded."""
    file = io.BytesIO()
    torch.save(tally.state_dict(), file)
    file.seek(0)
    other = make()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def flat(result):
    """Return the tensors and numbers of a result or a state, by name."""
    if isinstance(result, torch.Tensor):
        return {"": result}
    if dataclasses.is_dataclass(result):
        return vars(result)
    return result


def assert_same(first, second):
    """Assert that two results are the same to the bit (0 and -0 differ)."""
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        if not isinstance(value, torch.Tensor):
            assert value == other, name
            continue
        assert value.dtype == other.dtype, name
        assert value.shape == other.shape, name
        assert value.device.type == "cpu", name
        if value.dtype == torch.float32:
            value, other = value.view(torch.int32), other.view(torch.int32)
        assert torch.equal(value, other), name


@st.composite
def plans(draw):
    """Draw how images are split, in which batches they come, and how parts are merged."""
    order = draw(st.permutations(range(IMAGES)))
    cuts = sorted(draw(st.lists(st.integers(0, IMAGES), max_size=4)))
    parts = [order[i:j] for i, j in zip([0, *cuts], [*cuts, IMAGES], strict=True)]
    batches = [draw(st.integers(1, IMAGES)) for _ in parts]
    saved = [draw(st.booleans()) for _ in parts]
    merges = [
        (draw(st.integers(0, left - 1)), draw(st.integers(0, left - 2)))
        for left in range(len(parts), 1, -1)
    ]
    return parts, batches, saved, merges


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(list(MAKERS)),
    kind=st.sampled_from(KINDS),
    plan=plans(),
    seed=st.integers(0, 99),
)
def test_order_batches_and_merges_change_nothing(name, kind, plan, seed):
    activations, make = stream(kind, seed=seed), MAKERS[name]
    whole = feed(make(), range(IMAGES), activations)
    parts, batches, saved, merges = plan
    tallies = [
        feed(make(), part, activations, batch) for part, batch in zip(parts, batches, strict=True)
    ]
    tallies = [
        reloaded(make, tally) if again else tally
        for tally, again in zip(tallies, saved, strict=True)
    ]
    for first, second in merges:
        into = tallies.pop(first)
        into.merge(tallies.pop(second))
        tallies.append(into)
    (merged,) = tallies
    assert_same(merged.result(), whole.result())
    one, other = merged.state_dict(), whole.state_dict()
    assert one.pop("settings") == other.pop("settings")
    if "kept" in one:  # of 0 and -0 the first that came
        one["kept"], other["kept"] = one["kept"] + 0.0, other["kept"] + 0.0
    assert_same(one, other)


@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(list(MAKERS)), cut=st.integers(0, IMAGES), batch=st.integers(1, 20))
def test_going_on_from_a_state(name, cut, batch):
    activations, make = stream("relu"), MAKERS[name]
    half = reloaded(make, feed(make(), range(cut), activations, batch))
    whole = feed(make(), range(IMAGES), activations)
    assert_same(feed(half, range(cut, IMAGES), activations, batch).result(), whole.result())
    # a state replaces what was seen
    again = feed(make(), range(7), activations)
    again.load_state_dict(whole.state_dict())
    assert_same(again.result(), whole.result())


@pytest.mark.parametrize("name", MAKERS)
def test_threads_layouts_and_types_change_nothing(name):
    make, shape = MAKERS[name], (3, 40, 30)
    activations = stream("normal", shape=shape)
    whole = feed(make(), range(IMAGES), activations).result()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert_same(feed(make(), range(IMAGES), activations, 16).result(), whole)
    finally:
        torch.set_num_threads(threads)
    last = activations.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert_same(feed(make(), range(IMAGES), last).result(), whole)
    assert_same(feed(make(), range(IMAGES), activations.double()).result(), whole)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = activations.to(dtype)
        assert_same(
            feed(make(), range(IMAGES), rounded).result(),
            feed(make(), range(IMAGES), rounded.float()).result(),
        )


@pytest.mark.gpu
@pytest.mark.parametrize("name", MAKERS)
def test_devices_change_nothing(name):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    make = MAKERS[name]
    for kind in KINDS:
        activations, marks = stream(kind), marks_for(make())
        whole = feed(make(), range(IMAGES), activations).result()
        there, moving = make(), make()
        for some in torch.arange(IMAGES).split(16):
            there.update(some, activations[some].cuda(), marks[some].cuda())
            device = "cuda" if some[0] == 16 else "cpu"
            moving.update(some, activations[some].to(device), marks[some].to(device))
        assert_same(there.result(), whole)
        assert_same(moving.result(), whole)
        both = feed(make(), range(20), activations)
        other = make()
        other.update(torch.arange(20, IMAGES), activations[20:].cuda(), marks[20:].cuda())
        both.merge(other)
        assert_same(both.result(), whole)


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_seen(name):
    make, activations = MAKERS[name], stream("normal")
    empty = make()
    with pytest.raises(InputError, match="No image was seen"):
        empty.result()
    assert empty.nbytes == 0
    empty.merge(make())
    empty = reloaded(make, empty)
    whole = feed(make(), range(IMAGES), activations)
    expected = whole.result()
    whole.merge(empty)
    assert_same(whole.result(), expected)
    empty.merge(whole)
    assert_same(empty.result(), expected)
    none = torch.empty(0, dtype=torch.int64)
    whole.update(none, activations[:0], marks_for(whole)[:0])
    assert_same(whole.result(), expected)
    first = make()
    first.update(none, activations[:0], marks_for(first)[:0])
    assert_same(feed(first, range(IMAGES), activations).result(), expected)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite(name, value):
    tally, activations = MAKERS[name](), stream("normal")
    feed(tally, range(8), activations)
    activations[9, 1, 2, 3] = value
    with pytest.raises(NonFiniteError, match=f"Unit 1: an activation is {value}") as caught:
        feed(tally, range(8, 16), activations)
    assert isinstance(caught.value, InputError)
    assert caught.value.unit == 1
    # nothing of that batch was counted
    assert_same(tally.result(), feed(MAKERS[name](), range(8), stream("normal")).result())


@pytest.mark.parametrize("name", MAKERS)
def test_the_largest_numbers_are_finite(name):
    activations = torch.full((IMAGES, *SHAPE), torch.finfo().max)
    activations[::2, :, ::2] *= -1
    for value in flat(feed(MAKERS[name](), range(IMAGES), activations).result()).values():
        assert torch.as_tensor(value).isfinite().all()


@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_taken_in(name):
    tally, ids = MAKERS[name](), torch.arange(2)
    marks = marks_for(tally, 2)
    good = torch.zeros(2, *SHAPE)
    for bad, message in [
        (good[0], "expected floats"),
        (good.long(), "expected floats"),
        (good[:, :0], "no unit or no position"),
        (good[:, :, :0], "no unit or no position"),
        (good[:1], "ids came with 1 maps"),
    ]:
        with pytest.raises(InputError, match=message):
            tally.update(ids, bad, marks)
    for bad_ids in (torch.tensor([-1, 0]), torch.tensor([0, 1 << 40])):
        with pytest.raises(InputError, match="expected indices in a dataset"):
            tally.update(bad_ids, good, marks)
    with pytest.raises(InputError, match="Image 1 came twice"):
        tally.update(torch.tensor([1, 1]), good, marks)
    tally.update(ids, good, marks)
    with pytest.raises(InputError, match=r"maps of 4 x 4 came after 3 with maps of 4 x 5.*same"):
        tally.update(ids + 2, torch.zeros(2, 3, 4, 4), marks)
    other = MAKERS[name]()
    other.update(ids + 2, torch.zeros(2, 3, 4, 4), marks)
    with pytest.raises(InputError, match="came after"):
        tally.merge(other)


def test_other_settings_neither_merge_nor_load():
    pairs = [
        (TopK(5), TopK(6), "'k' .5 and 6."),
        (Quantile(images=5), Quantile(images=6), "'images'"),
        (Quantile(images=5), Quantile(images=5, seed=1), "'seed'"),
        (Quantile(images=5), Quantile(0.98, images=5), "'q'"),
        (Quantile(images=5), Quantile(images=5, sample=5), "'sample'"),
        (Pooled("mean"), Pooled("max"), "'how' .mean and max."),
        (Overlap(torch.zeros(100)), Overlap(torch.ones(100)), "'thresholds';"),
        (Overlap(torch.zeros(1)), Overlap(torch.zeros(1), concepts=3), "'concepts' .None and 3."),
    ]
    for mine, other, message in pairs:
        with pytest.raises(InputError, match=message):
            mine.merge(other)
        with pytest.raises(InputError, match=message):
            mine.load_state_dict(other.state_dict())
    for make, message in [
        (lambda: TopK(0), "at least 1"),
        (lambda: Quantile(1.0, images=5), "between 0 and 1"),
        (lambda: Quantile(images=0), "at least 1"),
        (lambda: Pooled("median"), "mean or max"),
        (lambda: Overlap(torch.tensor([math.nan])), "finite"),
        (lambda: Overlap(torch.zeros(1), concepts=0), "at least 1"),
    ]:
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize("name", MAKERS)
def test_bytes_held(name):
    tally = feed(MAKERS[name](), range(IMAGES), stream("relu"), 3)
    held = [each for value in vars(tally).values() for each in
            (value if isinstance(value, list) else [value])]  # fmt: skip
    tensors = [each for each in held if isinstance(each, torch.Tensor)]
    thresholds = 12 if name in ("overlap", "planes") else 0  # they were given
    assert tally.nbytes == sum(each.nbytes for each in tensors) - thresholds
    assert tally.nbytes == tally.estimate(*SHAPE, images=IMAGES, concepts=4)


class PositiveCounts(BaseTally):
    """Tally with one state of each kind, merged, saved and loaded by the base class alone."""

    def __init__(self):
        super().__init__()
        self.add_state("positive", lambda shape: torch.zeros(shape[0], dtype=torch.int64))
        self.add_state("seen", 0)
        self.add_state("ids", [])

    def _update(self, ids, activations, concepts):
        self._positive += (activations > 0).sum((0, 2, 3))
        self._seen += len(ids)
        self._ids.append(ids.clone())

    def result(self):
        return {"positive": self._positive.cpu(), "seen": self._seen,
                "ids": torch.cat(self._ids).sort().values}  # fmt: skip

    def estimate(self, units, h, w, images=0, concepts=0):
        return 8 * units + 8 * images

    @property
    def _settings(self):
        return {}


def test_states_of_a_new_tally_are_merged_saved_and_loaded():
    activations, make = stream("normal"), PositiveCounts
    expected = (activations > 0).sum((0, 2, 3))
    first, second = (feed(make(), ids, activations, 7) for ids in (range(15), range(15, IMAGES)))
    first.merge(reloaded(make, second))
    assert torch.equal(first.result()["positive"], expected)
    assert first.result()["seen"] == IMAGES
    assert first.result()["ids"].tolist() == list(range(IMAGES))
    assert first.nbytes == first.estimate(*SHAPE, images=IMAGES)
    again = reloaded(make, first)
    assert_same(again.result(), first.result())
    state = again.state_dict()
    feed(again, [0], activations)
    assert state["seen"] == IMAGES
    assert torch.equal(state["positive"], expected), "a state is a copy"


# ---- the first k


def slow_top(activations, k):
    """Return ids and activations of the first k, one unit at a time."""
    ids, values = [], []
    for unit in activations.unbind(1):
        peaks = [float(each.max()) for each in unit]
        order = sorted(range(len(peaks)), key=lambda i: (-peaks[i], i))[:k]
        ids.append(order)
        values.append([peaks[i] for i in order])
    return torch.tensor(ids), torch.tensor(values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, IMAGES, IMAGES + 3])
def test_top_against_sorting(kind, k):
    activations = stream(kind)
    top = feed(TopK(k), range(IMAGES - 1, -1, -1), activations, 7).result()
    ids, values = slow_top(activations, k)
    assert torch.equal(top.ids, ids)
    assert torch.equal(top.activations, values)
    assert not torch.signbit(top.activations[top.activations == 0]).any()
    units = torch.arange(SHAPE[0])[:, None]
    assert_same(top.maps, activations[ids, units])


def test_ties_go_to_the_smaller_id_over_merges():
    activations = torch.zeros(6, 1, 1, 2)
    activations[4] = -0.0
    first, second = TopK(3), TopK(3)
    first.update(torch.tensor([5, 3]), activations[[5, 3]])
    second.update(torch.tensor([4, 2]), activations[[4, 2]])
    second.merge(first)
    second.update(torch.tensor([1]), activations[[1]])
    assert second.result().ids.tolist() == [[1, 2, 3]]


def test_only_newcomers_are_copied():
    tally, activations = TopK(3), stream("normal")
    feed(tally, range(30), activations)
    before, place = tally._maps.clone(), tally._maps.data_ptr()
    weak = activations - 100
    feed(tally, range(30, 35), weak)
    assert torch.equal(tally._maps, before)
    activations[36, 1, 0, 0] = 100.0
    feed(tally, range(36, 37), activations)
    assert tally._maps.data_ptr() == place
    changed = (tally._maps != before).flatten(2).any(2)
    assert changed.sum(1).tolist() == [0, 1, 0]


def test_an_image_that_came_twice():
    activations = stream("normal", images=4)
    for make in (lambda: TopK(5), Pooled):
        tally = feed(make(), range(4), activations)
        feed(tally, [2], activations)
        with pytest.raises(InputError, match="Image 2 came twice"):
            tally.result()
        with pytest.raises(InputError, match="Image 2 came twice"):
            tally.state_dict()
    tally = feed(Quantile(images=4), range(4), activations)
    with pytest.raises(InputError, match=r"5 images came; 4 were announced.*images=5"):
        feed(tally, [2], activations)


# ---- quantiles


def hazen(values, q):
    """Return the quantile of a 1-D array by the definition of the 2022 code, in float64."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    place = np.clip(float(np.float32(q)) * n - 0.5, 0, n - 1)
    return np.float32(np.interp(place, np.arange(n), ordered))


def close_together(images, shape, seed):
    """Return neighbouring floats: around 1 in the first unit, around 1e30 in the others."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(-4, 9, size=(images, *shape))
    bits = np.where(np.arange(shape[0]) == 0, 0x3F800000, 0x7149F2CA)[:, None, None]
    return torch.from_numpy((bits + steps).astype(np.int32).view(np.float32).copy())


def adverse(kind, images, shape, seed=0):
    """Return a stream that is hard for an estimate of quantiles."""
    generator = torch.Generator().manual_seed(seed)
    size = (images, *shape)
    if kind == "constant":
        return torch.full(size, 0.1)
    if kind == "two-valued":
        return (torch.rand(size, generator=generator) < 0.0101).float()
    if kind == "close":
        return close_together(images, shape, seed)
    if kind == "one image":  # holds all that is large
        activations = stream("normal", images, shape, seed)
        activations[images // 2] += 100
        return activations
    if kind == "one place":
        activations = stream("normal", images, shape, seed)
        activations[:, :, shape[1] // 2] += 100
        return activations
    if kind in ("ascending", "descending", "shuffled"):
        ramp = torch.arange(math.prod(size), dtype=torch.float32)
        if kind == "shuffled":
            ramp = ramp[torch.randperm(len(ramp), generator=generator)]
        ramp = ramp.view(images, *shape[1:], shape[0]).movedim(3, 1)
        return ramp.flip(0) if kind == "descending" else ramp
    return stream(kind, images, shape, seed)


ADVERSE = (
    "normal",
    "relu",
    "constant",
    "two-valued",
    "heavy",
    "negative",
    "denormal",
    "ascending",
    "descending",
    "shuffled",
    "close",
    "one image",
    "one place",
)


@pytest.mark.parametrize("kind", ADVERSE)
def test_exact_below_100_000_positions(kind):
    images, shape = 243, (2, 16, 25)
    activations = adverse(kind, images, shape)
    assert images * 16 * 25 < 100_000
    for q in (0.99, 0.9, 0.5, 0.2, 0.005):
        found = feed(Quantile(q, images=images), range(images), activations, 32).result()
        assert found.tolist() == [hazen(unit.flatten(), q) for unit in activations.unbind(1)]


@settings(deadline=None, max_examples=80)
@given(
    q=st.floats(1e-4, 1 - 1e-4),
    kind=st.sampled_from(ADVERSE),
    images=st.integers(1, 60),
    batch=st.integers(1, 60),
    sample=st.integers(1, 700),
    fewer=st.integers(0, 59),
    seed=st.integers(-(2**70), 2**70),
)
def test_exact_on_the_positions_looked_at(q, kind, images, batch, sample, fewer, seed):
    shape = (2, 3, 4)
    activations = adverse(kind, images, shape)
    tally = Quantile(q, images=images, seed=seed, sample=sample)
    seen = max(images - fewer, 1)  # some cannot be read
    feed(tally, range(seen), activations, batch)
    count = min(12, math.ceil(sample / images))
    values = activations[:seen].flatten(2)
    if count < 12:
        places = torch.tensor([slow_places(i, 12, count, seed) for i in range(seen)])
        values = values.gather(2, places[:, None].expand(-1, 2, -1))
    expected = [hazen(unit.flatten(), q) for unit in values.unbind(1)]
    assert tally.result().tolist() == expected


def rank_error(activations, value, q):
    """Return the distance of q from the ranks of a value: shares of smaller, and of up to equal."""
    below = float((activations < value).sum()) / activations.numel()
    up_to = float((activations <= value).sum()) / activations.numel()
    return max(0.0, below - q, q - up_to)


@pytest.mark.parametrize("kind", ADVERSE)
def test_rank_error_on_streams_larger_than_the_sample(kind):
    images, shape = 64, (1, 256, 257)
    activations = adverse(kind, images, shape)
    assert activations.numel() > 4 * quantiles.SAMPLE
    tally = feed(Quantile(0.99, images=images), range(images), activations, 16)
    (value,) = tally.result().tolist()
    assert rank_error(activations, value, 0.99) <= 0.0005
    assert tally.nbytes <= 90_000


@pytest.mark.parametrize("q", [0.1, 0.9])
def test_a_zero_has_no_sign(q):
    found = feed(Quantile(q, images=IMAGES), range(IMAGES), stream("zeros")).result()
    assert (found == 0).all()
    assert not torch.signbit(found).any()


def test_many_images_of_few_positions():
    """With more images than the sample, one position of each is sampled."""
    images = 3000
    activations = stream("normal", images, (2, 3, 3))
    tally = feed(Quantile(0.9, images=images, sample=1000), range(images), activations, 500)
    assert tally._per_image((2, 3, 3)) == 1
    for value, unit in zip(tally.result(), activations.unbind(1), strict=True):
        assert rank_error(unit, value, 0.9) < 4 * math.sqrt(0.09 / images)


MASK = (1 << 64) - 1


def slow_mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def slow_places(image, positions, count, seed):
    """Return the sampled positions, computed with Python's integers."""
    step = 0x9E3779B97F4A7C15
    start = slow_mix(slow_mix((seed + step) & MASK) + (image + 1) * step & MASK)
    hashes = [slow_mix(start + (place + 1) * step & MASK) for place in range(positions)]
    return sorted(sorted(range(positions), key=hashes.__getitem__)[:count])


def test_splitmix64():
    """The published first outputs of the generator from the seed 1234567."""
    step = 0x9E3779B97F4A7C15
    assert slow_mix(1234567 + step & MASK) == 6457827717110365317
    states = torch.tensor([sampling._signed(1234567 + i * step) for i in (1, 2)])
    found = [number & MASK for number in sampling._mix(states).tolist()]
    assert found == [6457827717110365317, 3203168211198807973]


def test_positions_are_spread_evenly():
    ids = torch.arange(4000)
    places = sampling.sample_positions(ids, 50, 10, seed=5).numpy()
    assert places.shape == (4000, 10)
    assert (np.diff(places, axis=1) > 0).all()
    counts = np.bincount(places.ravel(), minlength=50)
    # each 800 times, with a standard deviation of 25
    assert abs(counts - 800).max() < 5 * 25.3
    assert not (places[1:] == places[:-1]).all(1).any()
    other = sampling.sample_positions(ids, 50, 10, seed=6).numpy()
    assert 1.9 < (places[:, :, None] == other[:, None]).sum((1, 2)).mean() < 2.1


def test_the_stated_probability():
    q, error, n = 0.99, 0.0005, quantiles.SAMPLE
    sigmas = error / math.sqrt(q * (1 - q) / n)
    assert sigmas == pytest.approx(5.146, abs=1e-3)

    def chernoff(p):
        return math.exp(-n * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))))

    stated = quantiles.miss_probability(q, error, n)
    assert stated == pytest.approx(2.99e-7, rel=0.01)
    normal = math.erfc(sigmas / math.sqrt(2))
    assert 0.9 * normal < stated < chernoff(q - error) + chernoff(q + error)
    assert chernoff(q - error) + chernoff(q + error) == pytest.approx(3.84e-6, rel=0.01)

    # the binomial, one term after another
    def tail(p, counts, n=2000):
        return sum(
            math.exp(
                math.lgamma(n + 1) - math.lgamma(c + 1) - math.lgamma(n - c + 1)
                + c * math.log(p) + (n - c) * math.log1p(-p)
            )
            for c in counts
        )  # fmt: skip

    expected = tail(0.88, range(1800, 2001)) + tail(0.92, range(1801))
    assert quantiles.miss_probability(0.9, 0.02, 2000) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["shuffled", "ascending"])
def test_misses_are_no_more_often_than_stated(kind):
    """Over 500 seeds, with a sample small enough that misses are common."""
    images, shape, q, error = 20, (1, 20, 20), 0.9, 0.03
    activations, tries = adverse(kind, images, shape), 500
    misses = 0
    for seed in range(tries):
        tally = feed(Quantile(q, images=images, seed=seed, sample=200), range(images), activations)
        misses += rank_error(activations, float(tally.result()), q) > error
    stated = quantiles.miss_probability(q, error, 200)
    assert 0.1 < stated < 0.3
    assert misses / tries < stated + 3 * math.sqrt(stated / tries)
    if kind == "shuffled":  # strata that are alike gain nothing
        assert misses / tries > 0.4 * stated


# ---- pooled activations and overlaps


@pytest.mark.parametrize("kind", KINDS)
def test_pooled_against_numpy(kind):
    activations = stream(kind, shape=(3, 5, 7))
    maps = activations.numpy().astype(np.float64)
    mean = feed(Pooled("mean"), range(IMAGES - 1, -1, -1), activations, 9).result()
    assert mean.ids.tolist() == list(range(IMAGES))
    near = max(np.abs(maps).max() * 1e-9, 2e-45)  # or the smallest float
    np.testing.assert_allclose(mean.values, maps.mean((2, 3)), rtol=1e-6, atol=near)
    largest = feed(Pooled("max"), range(IMAGES), activations, 9).result()
    assert torch.equal(largest.values, activations.amax((2, 3)))


def test_overlap_against_a_slow_count():
    activations, marks = stream("normal"), concepts()
    thresholds = torch.tensor([0.3, 1.0, 50.0])
    found = feed(Overlap(thresholds), range(IMAGES), activations, 7).result()
    big = torch.nn.functional.interpolate(
        activations, size=(9, 7), mode="bilinear", align_corners=False
    )
    above = big > thresholds[:, None, None]
    assert found.positions == IMAGES * 63
    assert torch.equal(found.unit, above.sum((0, 2, 3)))
    assert torch.equal(found.concept, marks.sum((0, 2, 3)))
    both = (above[:, :, None] & marks[:, None]).sum((0, 3, 4))
    either = (above[:, :, None] | marks[:, None]).sum((0, 3, 4))
    assert torch.equal(found.intersection, both)
    torch.testing.assert_close(found.iou, both.double() / either)
    assert found.iou[2].tolist() == [0.0] * 4


def test_overlap_is_above_not_at_the_threshold():
    tally, maps = Overlap(torch.tensor([1.0])), torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    tally.update(torch.tensor([0]), maps, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    assert tally.result().intersection.tolist() == [[1]]


def test_overlap_of_nothing_is_zero():
    tally = Overlap(torch.tensor([1.0]))
    tally.update(
        torch.tensor([0]), torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    )
    assert tally.result().iou.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("many", [0, 8, 1 << 40])  # whole masks for none, some, all
@pytest.mark.parametrize("exact", [10, overlap.EXACT])  # what float32 is taken to count
@pytest.mark.parametrize("block", [1, 50, validation.BLOCK])
def test_overlap_of_planes_is_that_of_one_hots(monkeypatch, block, exact, many):
    monkeypatch.setattr(validation, "BLOCK", block)
    monkeypatch.setattr(overlap, "EXACT", exact)
    monkeypatch.setattr(sparse_masks, "MANY", many)
    thresholds, activations, planes = torch.tensor([0.3, 1.0, 50.0]), stream("normal"), as_planes()
    hot = one_hot(planes)
    assert (planes[:, 0] == planes[:, 1])[planes[:, 0] > 0].any()  # twice at a pixel
    first, second = Overlap(thresholds), Overlap(thresholds, concepts=4)
    for ids in torch.arange(IMAGES).split(13):
        first.update(ids, activations[ids], hot[ids])
        second.update(ids, activations[ids], planes[ids])
    assert_same(first.result(), second.result())
    above = upsample(activations.flatten(0, 1), (9, 7)).view(IMAGES, 3, 1, 9, 7)
    above = above > thresholds[:, None, None, None]
    assert torch.equal(second.result().intersection, (above & hot[:, None]).sum((0, 3, 4)))


@settings(deadline=None, max_examples=300)
@given(
    kind=st.sampled_from(KINDS),
    old=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    same=st.sampled_from([None, 0, 1]),
    threshold=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5]),
    block=st.sampled_from([7, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_active_pixels_are_those_of_masks(kind, old, size, same, threshold, block, seed):
    """They are computed around high values alone, and are the same to the bit."""
    if same is not None:
        size = tuple(old[i] if i == same else size[i] for i in range(2))
    activations = stream(kind, images=3, shape=(2, *old), seed=seed)
    thresholds = torch.tensor([threshold, 0.1])
    if kind == "normal":  # at a value that occurs: above, not at
        thresholds[1] = upsample(activations[0, 1:], size).flatten()[seed % (size[0] * size[1])]
    maps, thresholds = activations.flatten(0, 1), thresholds.repeat(3)
    expected = masks(maps, thresholds, size).flatten(1)
    found = torch.zeros_like(expected, dtype=torch.int64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validation, "BLOCK", block)
        for at, pixels in active_pixels(maps, thresholds, size):
            assert (at.diff() >= 0).all()
            found.index_put_((at, pixels), torch.tensor(1), accumulate=True)
    assert torch.equal(found, expected.long())


@pytest.mark.parametrize(("old", "quantile"), [(112, 0.995), (56, 0.9), (13, 0.99), (7, 0.5)])
def test_active_pixels_of_real_sizes(old, quantile):
    kind = "relu" if quantile > 0.9 else "heavy"
    maps = stream(kind, images=1, shape=(9, old, old))[0]
    thresholds = maps.flatten(1).quantile(quantile, dim=1)
    expected = masks(maps, thresholds, (112, 112)).flatten(1)
    found = torch.zeros_like(expected)
    for at, pixels in active_pixels(maps, thresholds, (112, 112)):
        found[at, pixels] = True
    assert expected.any()
    assert torch.equal(found, expected)


def test_overlap_needs_concepts_that_fit():
    tally, ids, maps = MAKERS["overlap"](), torch.arange(2), torch.zeros(2, *SHAPE)
    for bad, message in [
        (None, "none came; expected bool"),
        (concepts(2).float(), "expected bool"),
        (as_planes(2), "expected bool"),
        (concepts(2)[0], "expected bool"),
        (concepts(3), "with 2 maps"),
    ]:
        with pytest.raises(InputError, match=message):
            tally.update(ids, maps, bad)
    with pytest.raises(InputError, match="2 units came with 3 thresholds"):
        tally.update(ids, maps[:, :2], concepts(2))
    tally.update(ids, maps, concepts(2))
    with pytest.raises(InputError, match="3 concepts came after 4"):
        tally.update(ids + 2, maps, concepts(2)[:, :3])
    other = Overlap(tally.thresholds)
    other.update(ids + 2, maps, concepts(2)[:, :3])
    with pytest.raises(InputError, match="3 concepts came after 4"):
        tally.merge(other)


def test_overlap_needs_planes_that_fit():
    tally, ids, maps = MAKERS["planes"](), torch.arange(2), torch.zeros(2, *SHAPE)
    for bad, message in [
        (None, "none came; expected whole numbers .image, plane"),
        (concepts(2), "expected whole numbers"),
        (as_planes(2).float(), "expected whole numbers"),
        (as_planes(2)[:, :0], "with 2 maps"),
        (as_planes(2) - 1, "numbers from -1 to 3 came; expected 0 for none, and from 1 to 4"),
        (as_planes(2) + 1, "numbers from 1 to 5 came"),
    ]:
        with pytest.raises(InputError, match=message):
            tally.update(ids, maps, bad)
    tally.update(ids, maps, as_planes(2))
    tally.update(ids + 2, maps, as_planes(2)[:, :1])  # fewer planes


def test_concepts_come_through_loading():
    def stacked(*concepts):
        items = [{"image": torch.zeros(3, 2, 2), "concepts": each} for each in concepts]
        (batch,) = loading.load_batches(items, [0], len(items), 0, None)
        return batch.concepts

    planes = as_planes(2)
    ragged = stacked(planes[0], planes[1, :1].long())
    assert ragged.dtype == torch.int32
    assert torch.equal(ragged[0], planes[0])
    assert torch.equal(ragged[1, :1], planes[1, :1])
    assert not ragged[1, 1:].any()
    hot = concepts(2)
    assert torch.equal(stacked(*hot), hot)
    assert torch.equal(stacked(*hot.float()), hot)
    with pytest.raises(InputError, match="Concepts of several sizes"):
        stacked(planes[0], planes[1, :, :5])
    with pytest.raises(InputError, match="others have none"):
        stacked(planes[0], None)


# ---- what the 2022 code found


@pytest.mark.parametrize(("archive", "name", "k", "q", "units"), golden.EXEMPLARS)
def test_the_exemplars_of_2022(parity, archive, name, k, q, units):
    expected = golden.folder(parity / archive, name)
    activations = golden.maps(parity, name, units)
    top, quantile, pooled = TopK(k), Quantile(q, images=300), Pooled("max")
    for ids in torch.arange(300).split(37):
        for tally in (top, quantile, pooled):
            tally.update(ids, activations[ids])
    found = top.result()
    np.testing.assert_array_equal(found.ids, expected["ids.csv"])
    # the ViT's matrix products are not the same to the last bits on every processor
    exact = expected["activations_full_precision.csv"]
    np.testing.assert_allclose(found.activations, exact, rtol=1e-6)
    np.testing.assert_allclose(pooled.result().values, expected["pooled_max.npy"], atol=4e-6)
    # 2022 rounds places to float32: at 7,500 positions by 2e-4 of the way between neighbours
    interpolated = expected["thresholds.csv"]["exact_interp"]
    np.testing.assert_allclose(quantile.result(), interpolated, rtol=2e-6)
