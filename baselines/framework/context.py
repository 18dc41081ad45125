"""What a method is given beside the units: a seed, training units, activations, memory."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from baselines.framework.columns import TRAINING_COLUMNS
from milannotations.errors import InputError
from milannotations.published.annotations import has_words
from milannotations.schema import Unit

if TYPE_CHECKING:
    from PIL import Image

    from baselines.shared.probe_statistics import ProbeStatistics

ENCODE_BATCH = 32
"""Pictures that are encoded together."""

ENCODED_BYTES = 2**29
"""Bytes of encoded pictures that are kept for each encoder."""

Made = TypeVar("Made")


class Context:
    """Supplies what methods require. One context may serve several methods, one by one.

    Args:
        seed: of every draw.
        training: `datasets.Dataset` of units with descriptions, or None.
        networks: functions by name of a network; each takes pictures and returns
            {layer: activations (picture, unit, h, w)}.
        probe_statistics: networks on probe data sets, by name of the network.

    Attributes:
        chosen_on: by network, the probe pictures (with their digest) and the network that were
            looked at. A method adds what else it chose on: `context.chosen_on[name].update(...)`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        training: Any | None = None,
        networks: Mapping[str, Callable[[Any], Mapping[str, Any]]] | None = None,
        probe_statistics: Mapping[str, ProbeStatistics] | None = None,
    ) -> None:
        self._seed = seed
        self._training = training
        self._networks = dict(networks or {})
        self._probe_statistics = dict(probe_statistics or {})
        self.chosen_on: dict[str, dict[str, Any]] = {}
        self._made: dict[Any, Any] = {}
        self._encoded: dict[str, OrderedDict[bytes, tuple[Any, ...]]] = {}

    @property
    def seed(self) -> int:
        """Of every draw."""
        return self._seed

    @property
    def has_training(self) -> bool:
        return self._training is not None

    @property
    def has_activations(self) -> bool:
        return bool(self._networks or self._probe_statistics)

    @cached_property
    def training(self) -> Any:
        """Training units, a `datasets.Dataset` with the columns `TRAINING_COLUMNS`.

        Raises:
            InputError: there are none.
        """
        if self._training is None:
            raise InputError("There is no training edition. Give one: training=EDITION.")
        return self._training.select_columns(list(TRAINING_COLUMNS))

    @cached_property
    def descriptions(self) -> tuple[tuple[Unit, str], ...]:
        """What people wrote of training units: (unit, text), in the edition's order.

        Raises:
            InputError: no training edition, or one without a description.
        """
        rows = self.training.select_columns(["network", "layer", "unit", "descriptions"])
        said = tuple(
            (Unit(row["network"], row["layer"], row["unit"]), text)
            for row in rows
            for text in row["descriptions"]
            if has_words(text)
        )
        if not said:
            raise InputError("The training edition has no description to learn from.")
        return said

    def draw(self, *key: object, below: int) -> int:
        """Return a number from 0 to below `below`, fixed by the seed and the key alone.

        Example:
            >>> Context(seed=1).draw("n/conv1/7", below=10) in range(10)
            True
        """
        text = "/".join(map(str, (*key, self.seed)))
        return int(hashlib.sha256(text.encode()).hexdigest(), 16) % below

    def cached(self, key: object, make: Callable[[], Made]) -> Made:
        """Return what `make` returned when this key was first asked for.

        For what serves all batches: an index of the training units, a fitted table.
        Begin the key with the name of the method.
        """
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def encode(
        self,
        pictures: Sequence[Mapping[str, Any]],
        encoder: str,
        make: Callable[[list[Image.Image]], Sequence[Any]],
    ) -> list[tuple[Any, ...]]:
        """Return what an encoder makes of each picture; a picture seen before is not made again.

        Pictures are the same if their bytes are, in whatever unit they stand. Up to
        `ENCODED_BYTES` bytes are remembered, the latest used.

        Args:
            pictures: undecoded: {"bytes": ..., "path": ...} (`encoded_exemplars`).
            encoder: name or digest; equal ones, equal results.
            make: takes up to `ENCODE_BATCH` RGB pictures, returns arrays or tensors whose
                first axis is the picture.

        Returns:
            For each picture, its slice of each array.
        """
        from datasets import Image

        kept = self._encoded.setdefault(encoder, OrderedDict())
        keys = [_digest(picture) for picture in pictures]
        found = {key: kept[key] for key in keys if key in kept}
        new = {key: p for key, p in zip(keys, pictures, strict=True) if key not in found}
        decode, names = Image().decode_example, list(new)
        for start in range(0, len(names), ENCODE_BATCH):
            part = names[start : start + ENCODE_BATCH]
            arrays = make([decode(dict(new[key])).convert("RGB") for key in part])
            for place, key in enumerate(part):
                # copies: a slice would keep the whole chunk alive
                found[key] = tuple(_copy(array[place]) for array in arrays)
        for key in keys:
            kept[key] = found[key]
            kept.move_to_end(key)
        size = sum(array.nbytes for arrays in kept.values() for array in arrays)
        while size > ENCODED_BYTES:
            size -= sum(array.nbytes for array in kept.popitem(last=False)[1])
        return [found[key] for key in keys]

    def activations(self, network: str, images: Any) -> Mapping[str, Any]:
        """Return what a network's units do on images: {layer: (picture, unit, h, w)}.

        Raises:
            InputError: the network is not at hand.
        """
        if network not in self._networks:
            raise InputError(
                f"The network '{network}' is not at hand (at hand: "
                f"{', '.join(self._networks) or 'none'}). Give a function from images to "
                "{layer: activations (picture, unit, h, w)}: "
                f"baselines.Context(networks={{'{network}': function}})."
            )
        return self._networks[network](images)

    def probe_statistics(self, network: str) -> ProbeStatistics:
        """Return a network on a probe data set: what its units do on pictures of known concepts.

        Raises:
            InputError: the network, or its probe data set, is not at hand.
        """
        if network not in self._probe_statistics:
            raise InputError(
                f"The network '{network}' on a probe data set is not at hand (at hand: "
                f"{', '.join(self._probe_statistics) or 'none'}). Give both: --subject MODEL "
                "--probe PROBE, or Context(probe_statistics={'NAME': ProbeStatistics(...)})."
            )
        found = self._probe_statistics[network]
        if network not in self.chosen_on:
            self.chosen_on[network] = dict(found.source)
        return found


def encoded_exemplars(units: Any) -> Iterator[dict[str, Any]]:
    """Yield the images and masks of each unit as {"bytes": ..., "path": ...}, or null lists.

    Args:
        units: `datasets.Dataset` with the columns `images` and `masks`.
    """
    rows = units.select_columns(["images", "masks"]).with_format("arrow")
    for table in rows.iter(32):
        yield from table.to_pylist()


def _digest(picture: Mapping[str, Any]) -> bytes:
    content = picture["bytes"]
    if content is None:  # a file, known by its path
        content = b"path " + str(picture["path"]).encode()
    return hashlib.sha256(content).digest()


def _copy(array: Any) -> Any:
    return array.clone() if hasattr(array, "clone") else array.copy()
