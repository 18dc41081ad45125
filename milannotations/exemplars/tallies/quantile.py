"""Quantiles of each unit's activations over all positions of all images."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from milannotations.errors import InputError
from milannotations.exemplars.tallies.validation import (
    Shape,
    blocks,
    check_settings,
    check_shape,
    received,
    shape_of,
)

SAMPLE = 1 << 20
"""Positions of a unit that are looked at, or all where there are no more."""

_BITS = 64
_FIRST = -(1 << (_BITS - 1))  # the bit that is the sign of an int64


def _signed(number: int) -> int:
    """Return the int64 of the same lowest 64 bits."""
    return ((number - _FIRST) & (1 << _BITS) - 1) + _FIRST


_STEP = _signed(0x9E3779B97F4A7C15)
_FACTORS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


class Quantile:
    """The quantile of each unit's activations over all positions of all images.

    It is exact, for any stream, while images * h * w <= sample, and so below a million positions
    by default. Above that it looks at s = ceil(sample / images) positions of each image, those
    with the smallest hashes, the same for all units, and is exact on these n = images * s.

    How far off it is then. Let F(x) be the share of all positions whose activation is at most x,
    F_i(x) that of image i. The number looked at that are at most x is a sum of hypergeometric
    counts, one an image, with mean n F(x) and variance at most s * sum F_i (1 - F_i) <= n F (1 -
    F): images are strata, which never does worse than drawing n positions of all. A
    hypergeometric count is a sum of independent trials (Vatutin and Mikhailov 1982), and the
    tails of such a sum, beyond one of its mean, are at most those of the binomial with the same
    mean (Hoeffding 1956, theorem 4). So the value's rank is off by more than `error` with a
    probability of at most

        P(Bin(n, q - error) > q n - .5) + P(Bin(n, q + error) <= q n + .5)

    for a unit, over draws of the seed (the hashes taken for random), whatever the activations and
    however close to one another they lie: `miss_probability`. For the default sample, q = .99 and
    error = .0005 that is 3.0e-7 (the error is 5.15 standard deviations of a rank, which are
    sqrt(q (1 - q) / n) = 9.7e-5); Chernoff's bound is 3.8e-6. For u units it is at most u times
    as much.

    The value is that of the 2022 code where that discards nothing: with the n activations in
    order and counted from 0, the place q n - .5, q rounded to float32, between neighbours in
    proportion (Hazen's definition), in float64, rounded to float32.

    Only the m activations that can still matter are kept, at the nearer end:
    m = about min(q, 1 - q) * n + 2 for all images. It holds 8 * m * units bytes, two float32
    of room for each, and 12 a unit: 84 kB a unit at .99 and the default sample, whatever the
    number of images below that.

    Args:
        q: between 0 and 1.
        images: how many will come; fewer may.
        seed: of the positions looked at.
        sample: positions of a unit to look at, at least, where there are so many.

    Raises:
        InputError: q or the others out of range.

    Example:
        >>> tally = Quantile(0.5, images=2)
        >>> tally.update(torch.arange(2), torch.tensor([1.0, 2.0, 3.0, 9.0]).view(2, 1, 1, 2))
        >>> tally.result()
        tensor([2.5000])
    """

    def __init__(
        self, q: float = 0.99, *, images: int, seed: int = 0, sample: int = SAMPLE
    ) -> None:
        if not 0 < q < 1:
            raise InputError(f"A quantile of {q} was asked for; expected between 0 and 1.")
        if images < 1 or sample < 1:
            raise InputError(
                f"A quantile over {images:,} images and at least {sample:,} positions was asked "
                "for; expected at least 1 of each."
            )
        self.q, self.images, self.seed, self.sample = q, images, seed, sample
        self._sign = 1.0 if q >= 0.5 else -1.0  # the lower end of x is the upper end of -x
        self._shape: Shape | None = None
        self._seen = 0
        self._kept = torch.empty(0, 0)  # (unit, 2 m): the first `_filled` of a row, then -inf
        self._filled = torch.empty(0, dtype=torch.int64)
        self._cutoffs = torch.empty(0)  # (unit,): nothing up to here matters any more

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch; see `Tally.update`."""
        ids, activations = received(ids, activations, self._shape)
        self._count(len(ids))
        self._settle(shape_of(activations), activations.device)
        maps = activations.flatten(2).transpose(0, 1)
        places = self._places(ids.to(maps.device))
        looked = maps.shape[2] if places is None else places.shape[1]
        for some in blocks(len(maps), len(ids) * looked, maps.device):
            values = maps[some]
            if places is not None:
                values = values.gather(2, places.expand(len(values), -1, -1))
            values = values.reshape(len(values), -1)
            self._add(some, values if self._sign > 0 else -values)

    def merge(self, other: Self) -> None:
        """Take in what another tally has seen; see `Tally.merge`."""
        check_settings(self._settings, other._settings)
        if other._shape is None:
            return
        check_shape(self._shape, other._shape)
        self._count(other._seen)
        self._settle(other._shape, self._kept.device if self._shape else other._kept.device)
        for some in blocks(len(self._kept), self._kept.shape[1], self._kept.device):
            self._add(some, other._kept[some].to(self._kept.device))

    def result(self) -> Tensor:
        """Return the quantile of each unit, float32 (unit,); see `Tally.result`."""
        if not self._seen or self._shape is None:
            raise InputError("No image was seen, so there are no quantiles.")
        count = self._seen * self._per_image(self._shape)
        below, share = _place(self.q, count)
        above = min(below + 1, count - 1)
        # places from the end that is kept
        ends = [count - 1 - below, count - 1 - above] if self._sign > 0 else [below, above]
        found = []
        for some in blocks(len(self._kept), self._kept.shape[1], self._kept.device):
            order = self._kept[some].topk(max(ends) + 1, dim=1).values.cpu().double()
            low, high = order[:, ends[0]], order[:, ends[1]]
            found.append((self._sign * (low + (high - low) * share)).float() + 0.0)
        return torch.cat(found)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it; the same for the same images. See `Tally.state_dict`."""
        state: dict[str, Any] = {"settings": self._settings, "shape": None}
        if self._shape is not None:
            most = min(self._room(self._shape), int(self._filled.max()))
            kept = torch.empty(len(self._kept), most)
            for some in blocks(len(self._kept), self._kept.shape[1], self._kept.device):
                kept[some] = self._kept[some].topk(most, dim=1).values.cpu()
            state |= {"shape": list(self._shape), "seen": self._seen, "kept": kept}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; see `Tally.load_state_dict`."""
        check_settings(self._settings, state["settings"])
        self._shape, self._seen = None, 0
        if state["shape"] is not None:
            units, h, w = state["shape"]
            self._settle((units, h, w), torch.device("cpu"))
            self._seen = state["seen"]
            room, most = self._room((units, h, w)), state["kept"].shape[1]
            self._kept[:, :most] = state["kept"]
            self._filled += (state["kept"] > -torch.inf).sum(1)
            if most == room:
                self._cutoffs[:] = state["kept"][:, -1]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now."""
        return 0 if self._shape is None else self.estimate(*self._shape)

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold; see `Tally.estimate`."""
        return units * (4 * 2 * self._room((units, h, w)) + 12)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"q": self.q, "images": self.images, "seed": self.seed, "sample": self.sample}

    def _per_image(self, shape: Shape) -> int:
        return min(shape[1] * shape[2], ceil(self.sample / self.images))

    def _room(self, shape: Shape) -> int:
        """Return m: how many activations of a unit matter. Fewer images need no more."""
        count = self.images * self._per_image(shape)
        below, _ = _place(self.q, count)
        return min(count, count - below + 1 if self._sign > 0 else below + 2)

    def _count(self, images: int) -> None:
        if self._seen + images > self.images:
            raise InputError(
                f"{self._seen + images:,} images came; {self.images:,} were announced. Make the "
                f"tally with Quantile(images={self._seen + images}) or more."
            )
        self._seen += images

    def _settle(self, shape: Shape, device: torch.device) -> None:
        """Make room at the first batch; follow the activations to another device."""
        if self._shape is None:
            self._shape = shape
            room = 2 * self._room(shape)
            self._kept = torch.full((shape[0], room), -torch.inf, device=device)
            self._filled = torch.zeros(shape[0], dtype=torch.int64, device=device)
            self._cutoffs = torch.full((shape[0],), -torch.inf, device=device)
        elif self._kept.device != device:
            self._kept, self._filled = self._kept.to(device), self._filled.to(device)
            self._cutoffs = self._cutoffs.to(device)

    def _places(self, ids: Tensor) -> Tensor | None:
        """Return which positions of each image are looked at, (image, s); None for all."""
        assert self._shape is not None
        positions, looked = self._shape[1] * self._shape[2], self._per_image(self._shape)
        if looked == positions:
            return None
        return sampled(ids, positions, looked, self.seed)

    def _add(self, some: slice, values: Tensor) -> None:
        """Keep of values (unit, value), of some units, those that may matter."""
        kept, filled, cutoffs = self._kept[some], self._filled[some], self._cutoffs[some]
        width, room = kept.shape[1], kept.shape[1] // 2
        matters = values > cutoffs[:, None]
        found, counts = _found(matters)
        full = (filled + counts > width).nonzero()[:, 0]
        if len(full):
            rows, many = kept[full], counts[full] > width - room
            if bool(many.any()):  # more at once than there is room for
                best = torch.cat([rows[many], values[full[many]]], 1).topk(room, 1, sorted=False)
                rows[many, :room] = best.values
                matters[full[many]] = False
                found, counts = _found(matters)
            if not bool(many.all()):
                rows[~many, :room] = rows[~many].topk(room, dim=1, sorted=False).values
            rows[:, room:] = -torch.inf
            kept[full] = rows
            filled[full] = room
            cutoffs[full] = rows[:, :room].amin(1)
        # the first free place of each unit, less those that its first value has before it
        starts = torch.arange(len(kept), device=kept.device) * width + filled
        starts += counts - counts.cumsum(0)
        places = torch.arange(len(found), device=kept.device) + starts.repeat_interleave(counts)
        kept.view(-1)[places] = values.reshape(-1)[found]
        filled += counts


def _found(matters: Tensor) -> tuple[Tensor, Tensor]:
    """Return the flat places of what is true, in order, and how much it is in each row."""
    if matters.device.type == "cpu":
        found = torch.from_numpy(np.flatnonzero(matters.numpy()))  # quicker than torch's
    else:
        found = matters.view(-1).nonzero()[:, 0]
    rows, width = matters.shape
    ends = torch.searchsorted(found, torch.arange(rows + 1, device=found.device) * width)
    return found, ends.diff()


def _place(q: float, count: int) -> tuple[int, float]:
    """Return where the quantile of `count` values in order lies: after which, and how far."""
    place = min(max(float(np.float32(q)) * count - 0.5, 0.0), count - 1.0)
    return floor(place), place - floor(place)


def sampled(ids: Tensor, positions: int, count: int, seed: int) -> Tensor:
    """Return the positions of each image that have the smallest hashes, ascending.

    Each image's hashes are the stream of splitmix64 (Steele, Lea and Flood 2014) from a place
    that is itself a hash of the seed and the image: whole numbers, the same on any machine and
    device.

    Args:
        ids: int64 (image,).
        positions: of an image.
        count: how many to return, at most `positions`.
        seed: any whole number; its lowest 64 bits count.

    Returns:
        int64 (image, count), where the ids are.

    Example:
        >>> sampled(torch.tensor([0, 1]), positions=100, count=4, seed=0)
        tensor([[16, 19, 40, 76],
                [36, 51, 95, 96]])
    """
    start = _mixed(torch.tensor([_signed(seed)], device=ids.device) + _STEP)
    starts = _mixed(start + (ids + 1) * _STEP)
    hashes = _mixed(starts[:, None] + torch.arange(1, positions + 1, device=ids.device) * _STEP)
    hashes ^= _FIRST  # in order as unsigned numbers are
    return hashes.topk(count, dim=1, largest=False, sorted=False).indices.sort(dim=1).values


def _mixed(numbers: Tensor) -> Tensor:
    """Return the output function of splitmix64, which no two numbers share; `numbers` is lost."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        numbers ^= _shifted(numbers, shift)
        numbers *= factor
    numbers ^= _shifted(numbers, 31)
    return numbers


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Return int64 shifted to the right as unsigned numbers are."""
    return (numbers >> by).bitwise_and_((1 << (_BITS - by)) - 1)


def miss_probability(q: float = 0.99, error: float = 0.0005, count: int = SAMPLE) -> float:
    """Return the most that the probability of a rank off by more than `error` can be.

    See `Quantile`, where it is derived. It is for one unit, of a stream larger than the sample;
    smaller ones are exact.

    Args:
        q: the quantile.
        error: in ranks as shares of all positions.
        count: positions looked at.

    Example:
        >>> f"{miss_probability():.1e}"
        '3.0e-07'
    """
    from scipy.stats import binom

    below, _ = _place(q, count)
    low, high = q - error, q + error
    return float(
        (binom.sf(below, count, low) if low > 0 else 0.0)
        + (binom.cdf(below + 1, count, high) if high < 1 else 0.0)
    )
