"""Tally of quantiles of each unit's activations over all positions of all images."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from milannotations.errors import InputError
from milannotations.exemplars.tallies.base import BaseTally
from milannotations.exemplars.tallies.sampling import sample_positions
from milannotations.exemplars.tallies.validation import Shape, blocks

SAMPLE = 1 << 20
"""Positions of a unit that are sampled; all of them where there are no more."""


class Quantile(BaseTally):
    """The quantile of each unit's activations over all positions of all images.

    It is exact, for any stream, while images * h * w <= sample, and so below a million positions
    by default. Above that it samples s = ceil(sample / images) positions of each image, those
    with the smallest hashes, the same for all units, and is exact on these n = images * s.

    The error is then bounded as follows. Let F(x) be the share of all positions whose activation
    is at most x, F_i(x) that of image i. The number of sampled positions that are at most x is a
    sum of hypergeometric counts, one per image, with mean n F(x) and variance at most
    s * sum F_i (1 - F_i) <= n F (1 - F): images are strata, which is never worse than drawing n
    positions of all. A hypergeometric count is a sum of independent trials (Vatutin and Mikhailov
    1982), and the tails of such a sum, beyond one of its mean, are at most those of the binomial
    with the same mean (Hoeffding 1956, theorem 4). So the value's rank is off by more than `error`
    with a probability of at most

        P(Bin(n, q - error) > q n - .5) + P(Bin(n, q + error) <= q n + .5)

    for a unit, over draws of the seed (the hashes taken as random), whatever the activations and
    however close to one another they lie: `miss_probability`. For the default sample, q = .99 and
    error = .0005 that is 3.0e-7 (the error is 5.15 standard deviations of a rank, which are
    sqrt(q (1 - q) / n) = 9.7e-5); Chernoff's bound is 3.8e-6. For u units it is at most u times
    as much.

    The value is that of the 2022 code where that discards nothing: with the n activations in
    order and counted from 0, the index q n - .5, q rounded to float32, between neighbours in
    proportion (Hazen's definition), in float64, rounded to float32.

    Only the m activations that can still matter are kept, at the nearer end:
    m = about min(q, 1 - q) * n + 2 for all images. It holds 8 * m * units bytes, two float32
    of room for each, and 12 per unit: 84 kB per unit at .99 and the default sample, whatever the
    number of images below that.

    Args:
        q: between 0 and 1.
        images: number of images that will come; fewer may.
        seed: random seed of the sampled positions.
        sample: least number of positions of a unit to sample, where there are so many.

    Raises:
        InputError: q or the others out of range.

    Example:
        >>> tally = Quantile(0.5, images=2)
        >>> tally.update(torch.arange(2), torch.tensor([1.0, 2.0, 3.0, 9.0]).view(2, 1, 1, 2))
        >>> tally.result()
        tensor([2.5000])
    """

    # A row of `_kept` is a buffer of twice the size that matters: values are appended until it is
    # full, then it is cut to its m largest. So each cut, which costs a selection over 2 m values,
    # makes room for m more. After a cut, values that do not exceed the m-th largest, the cutoff,
    # are not appended at all: soon these are nearly all.
    _kept: Tensor  # float32 (unit, 2 m): the first `_filled` of each row, then -inf
    _filled: Tensor  # int64 (unit,)
    _cutoffs: Tensor  # float32 (unit,): values up to here cannot matter any more
    _seen: int  # images

    def __init__(
        self, q: float = 0.99, *, images: int, seed: int = 0, sample: int = SAMPLE
    ) -> None:
        super().__init__()
        if not 0 < q < 1:
            raise InputError(f"Quantile is {q}; expected a number between 0 and 1.")
        if images < 1 or sample < 1:
            raise InputError(
                f"Quantile over {images:,} images and at least {sample:,} positions; expected at "
                "least 1 of each."
            )
        self.q, self.images, self.seed, self.sample = q, images, seed, sample
        # The largest values are kept; for a quantile at the lower end, those of -x.
        self._sign = 1.0 if q >= 0.5 else -1.0
        self.add_state(
            "kept", lambda shape: torch.full((shape[0], 2 * self._room(shape)), -torch.inf)
        )
        self.add_state("filled", lambda shape: torch.zeros(shape[0], dtype=torch.int64))
        self.add_state("cutoffs", lambda shape: torch.full((shape[0],), -torch.inf))
        self.add_state("seen", 0)

    def result(self) -> Tensor:
        """Return the quantile of each unit, float32 (unit,); see `Tally.result`."""
        if not self._seen or self._shape is None:
            raise InputError("No image was seen, so there are no quantiles.")
        count = self._seen * self._per_image(self._shape)
        below, share = _rank(self.q, count)
        above = min(below + 1, count - 1)
        # ranks among all values -> ranks from the end that is kept
        ends = [count - 1 - below, count - 1 - above] if self._sign > 0 else [below, above]
        quantiles = []
        for part in blocks(len(self._kept), self._kept.shape[1], self._device):
            order = self._kept[part].topk(max(ends) + 1, dim=1).values.cpu().double()
            low, high = order[:, ends[0]], order[:, ends[1]]
            # adding 0 turns -0 into 0
            quantiles.append((self._sign * (low + (high - low) * share)).float() + 0.0)
        return torch.cat(quantiles)

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold; see `Tally.estimate`."""
        return units * (4 * 2 * self._room((units, h, w)) + 12)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"q": self.q, "images": self.images, "seed": self.seed, "sample": self.sample}

    def _check_update(self, shape: Shape, images: int, concepts: Tensor | None) -> None:
        if self._seen + images > self.images:
            raise InputError(
                f"{self._seen + images:,} images came; {self.images:,} were announced. Make the "
                f"tally with Quantile(images={self._seen + images}) or more."
            )

    def _update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None) -> None:
        self._seen += len(ids)
        maps = activations.flatten(2).transpose(0, 1)  # (unit, image, position)
        positions = self._positions(ids.to(maps.device))
        sampled = maps.shape[2] if positions is None else positions.shape[1]
        for part in blocks(len(maps), len(ids) * sampled, maps.device):
            values = maps[part]
            if positions is not None:
                values = values.gather(2, positions.expand(len(values), -1, -1))
            values = values.reshape(len(values), -1)
            self._append(part, values if self._sign > 0 else -values)

    def _check_merge(self, other: Self) -> None:
        self._check_update(self._shape or (0, 0, 0), other._seen, None)

    def _merge(self, other: Self) -> None:
        self._seen += other._seen
        for part in blocks(len(self._kept), self._kept.shape[1], self._device):
            # the empty end of the other's rows, -inf, exceeds no cutoff and is not appended
            self._append(part, other._kept[part].to(self._device))

    def _export(self) -> dict[str, Any]:
        # The values that matter, in order: what else a row holds depends on the order of arrival.
        # (`_filled` may differ from unit to unit; -inf fills up the shorter rows.)
        assert self._shape is not None
        most = min(self._room(self._shape), int(self._filled.max()))
        kept = torch.empty(len(self._kept), most)
        for part in blocks(len(self._kept), self._kept.shape[1], self._device):
            kept[part] = self._kept[part].topk(most, dim=1).values.cpu()
        return {"seen": self._seen, "kept": kept}

    def _import(self, shape: Shape, state: Mapping[str, Any]) -> None:
        self._allocate(shape, torch.device("cpu"))
        self._seen = state["seen"]
        most = state["kept"].shape[1]
        self._kept[:, :most] = state["kept"]
        self._filled += (state["kept"] > -torch.inf).sum(1)
        if most == self._room(shape):  # full, so the last value of a row is its cutoff
            self._cutoffs[:] = state["kept"][:, -1]

    def _per_image(self, shape: Shape) -> int:
        """Return s, the number of positions that are sampled of an image."""
        return min(shape[1] * shape[2], ceil(self.sample / self.images))

    def _room(self, shape: Shape) -> int:
        """Return m, the number of activations of a unit that matter. Fewer images need no more."""
        count = self.images * self._per_image(shape)
        below, _ = _rank(self.q, count)
        return min(count, count - below + 1 if self._sign > 0 else below + 2)

    def _positions(self, ids: Tensor) -> Tensor | None:
        """Return the sampled positions of each image, int64 (image, s); None for all."""
        assert self._shape is not None
        positions, sampled = self._shape[1] * self._shape[2], self._per_image(self._shape)
        if sampled == positions:
            return None
        return sample_positions(ids, positions, sampled, self.seed)

    def _append(self, part: slice, values: Tensor) -> None:
        """Append the values (unit, value) that may matter to the rows of some units."""
        kept, filled, cutoffs = self._kept[part], self._filled[part], self._cutoffs[part]
        width, room = kept.shape[1], kept.shape[1] // 2
        matters = values > cutoffs[:, None]
        indices, counts = _true_indices(matters)
        # 1. Cut the rows that would overflow to their m largest values.
        full = (filled + counts > width).nonzero()[:, 0]
        if len(full):
            rows, many = kept[full], counts[full] > width - room
            if bool(many.any()):
                # More new values than a cut makes room for: select among old and new together.
                # Nothing of these units is left to append.
                best = torch.cat([rows[many], values[full[many]]], 1).topk(room, 1, sorted=False)
                rows[many, :room] = best.values
                matters[full[many]] = False
                indices, counts = _true_indices(matters)
            if not bool(many.all()):
                rows[~many, :room] = rows[~many].topk(room, dim=1, sorted=False).values
            rows[:, room:] = -torch.inf
            kept[full] = rows
            filled[full] = room
            cutoffs[full] = rows[:, :room].amin(1)
        # 2. Append the others in one scatter. Value n of the flat list of new values belongs to
        # the unit whose share of the list it falls into, and its target is
        #     (unit's first free slot) + (n - index in the list of the unit's first value),
        # where the latter index is the sum of the counts of all units before.
        starts = torch.arange(len(kept), device=kept.device) * width + filled
        starts += counts - counts.cumsum(0)
        targets = torch.arange(len(indices), device=kept.device) + starts.repeat_interleave(counts)
        kept.view(-1)[targets] = values.reshape(-1)[indices]
        filled += counts


def _true_indices(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Return the flat indices of True in flags (row, column), in order, and their count per row."""
    if flags.device.type == "cpu":
        indices = torch.from_numpy(np.flatnonzero(flags.numpy()))  # faster than torch's
    else:
        indices = flags.view(-1).nonzero()[:, 0]
    rows, width = flags.shape
    # the indices are sorted, so that rows are found by bisection
    ends = torch.searchsorted(indices, torch.arange(rows + 1, device=indices.device) * width)
    return indices, ends.diff()


def _rank(q: float, count: int) -> tuple[int, float]:
    """Return the rank of the quantile among `count` values, rounded down, and the remainder."""
    rank = min(max(float(np.float32(q)) * count - 0.5, 0.0), count - 1.0)
    return floor(rank), rank - floor(rank)


def miss_probability(q: float = 0.99, error: float = 0.0005, count: int = SAMPLE) -> float:
    """Return an upper bound of the probability that a value's rank is off by more than `error`.

    See `Quantile`, where it is derived. It holds for one unit, of a stream larger than the sample;
    smaller ones are exact.

    Args:
        q: the quantile.
        error: in ranks as shares of all positions.
        count: number of sampled positions.

    Example:
        >>> f"{miss_probability():.1e}"
        '3.0e-07'
    """
    from scipy.stats import binom

    below, _ = _rank(q, count)
    low, high = q - error, q + error
    return float(
        (binom.sf(below, count, low) if low > 0 else 0.0)
        + (binom.cdf(below + 1, count, high) if high < 1 else 0.0)
    )
