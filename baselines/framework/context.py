"""Context of a method: a seed, training units, activations, and a memory for all batches."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
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
"""Images encoded together."""

ENCODED_BYTES = 2**29
"""Most bytes of encoded images that are kept for each encoder."""

T = TypeVar("T")


class Context:
    """Everything that methods may require. One context may serve several methods in turn.

    Args:
        seed: random seed.
        training: `datasets.Dataset` of units with annotations, or None.
        networks: functions by name of a network; each takes images and returns
            {layer: activations (image, unit, h, w)}.
        probe_statistics: networks on probe datasets, by name of the network.

    Attributes:
        chosen_on: by network, the probe images (with their digest) and the network that were
            used. A method adds whatever else its descriptions were chosen on:
            `context.chosen_on[name].update(...)`.
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
        self._values: dict[Any, Any] = {}
        self._encoded: dict[str, OrderedDict[bytes, tuple[Any, ...]]] = {}

    @property
    def seed(self) -> int:
        """Random seed."""
        return self._seed

    @property
    def has_training(self) -> bool:
        """True if there are training units."""
        return self._training is not None

    @property
    def has_activations(self) -> bool:
        """True if the activations of any network are available."""
        return bool(self._networks or self._probe_statistics)

    @cached_property
    def training(self) -> Any:
        """Training units, a `datasets.Dataset` with the columns `TRAINING_COLUMNS`.

        Raises:
            InputError: there are none.
        """
        if self._training is None:
            raise InputError("There is no training edition. Give one: --training EDITION.")
        return self._training.select_columns(list(TRAINING_COLUMNS))

    @cached_property
    def descriptions(self) -> tuple[tuple[Unit, str], ...]:
        """Annotations of the training units: (unit, text), in the order of the edition.

        Raises:
            InputError: no training edition, or one without annotations.
        """
        rows = self.training.select_columns(["network", "layer", "unit", "descriptions"])
        pairs = tuple(
            (Unit(row["network"], row["layer"], row["unit"]), text)
            for row in rows
            for text in row["descriptions"]
            if has_words(text)
        )
        if not pairs:
            raise InputError("The training edition has no description to learn from.")
        return pairs

    def draw(self, *key: object, below: int) -> int:
        """Return a random integer from 0 to `below` - 1 that depends only on seed and key.

        Example:
            >>> Context(seed=1).draw("n/conv1/7", below=10) in range(10)
            True
        """
        text = "/".join(map(str, (*key, self.seed)))
        return int(hashlib.sha256(text.encode()).hexdigest(), 16) % below

    def cached(self, key: object, make: Callable[[], T]) -> T:
        """Return the value of a key, which `make` computes at the first call.

        Use it for what serves all batches, such as an index of the training units or a fitted
        model. Begin the key with the name of the method.
        """
        if key not in self._values:
            self._values[key] = make()
        value: T = self._values[key]
        return value

    def encode(
        self,
        images: Sequence[Mapping[str, Any]],
        encoder: str,
        encode: Callable[[list[Image.Image]], Sequence[Any]],
    ) -> list[tuple[Any, ...]]:
        """Encode images, each of them once, in whatever units and batches it occurs.

        Images are the same if their bytes are. Up to `ENCODED_BYTES` bytes of results are kept,
        those used last.

        Args:
            images: encoded images, {"bytes": ..., "path": ...}.
            encoder: name or digest of the encoder; the same name must mean the same results.
            encode: takes up to `ENCODE_BATCH` RGB images and returns arrays or tensors whose first
                axis is the image.

        Returns:
            For each image, its slice of each array.
        """
        from datasets import Image

        memory = self._encoded.setdefault(encoder, OrderedDict())
        keys = [_digest(image) for image in images]
        results = {key: memory[key] for key in keys if key in memory}
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in results}
        decode, new_keys = Image().decode_example, list(new)
        for start in range(0, len(new_keys), ENCODE_BATCH):
            batch = new_keys[start : start + ENCODE_BATCH]
            arrays = encode([decode(dict(new[key])).convert("RGB") for key in batch])
            for i, key in enumerate(batch):
                # copies: a slice would keep the whole batch in memory
                results[key] = tuple(_copy(array[i]) for array in arrays)
        # the order of `memory` is that of the last use
        for key in keys:
            memory[key] = results[key]
            memory.move_to_end(key)
        size = sum(array.nbytes for arrays in memory.values() for array in arrays)
        while size > ENCODED_BYTES:
            size -= sum(array.nbytes for array in memory.popitem(last=False)[1])
        return [results[key] for key in keys]

    def activations(self, network: str, images: Any) -> Mapping[str, Any]:
        """Return the activations of a network on images: {layer: (image, unit, h, w)}.

        Raises:
            InputError: the network is not available.
        """
        if network not in self._networks:
            raise InputError(
                f"The network '{network}' is not available (available: "
                f"{', '.join(self._networks) or 'none'}). Give a function from images to "
                "{layer: activations (image, unit, h, w)}: "
                f"baselines.Context(networks={{'{network}': function}})."
            )
        return self._networks[network](images)

    def probe_statistics(self, network: str) -> ProbeStatistics:
        """Return the statistics of a network on a probe dataset.

        Raises:
            InputError: the network, or its probe dataset, is not available.
        """
        if network not in self._probe_statistics:
            raise InputError(
                f"The network '{network}' on a probe dataset is not available (available: "
                f"{', '.join(self._probe_statistics) or 'none'}). Give both: --subject MODEL "
                "--probe PROBE."
            )
        statistics = self._probe_statistics[network]
        if network not in self.chosen_on:
            self.chosen_on[network] = dict(statistics.source)
        return statistics


def _digest(image: Mapping[str, Any]) -> bytes:
    content = image["bytes"]
    if content is None:
        # a file, identified by its path
        content = b"path " + str(image["path"]).encode()
    return hashlib.sha256(content).digest()


def _copy(array: Any) -> Any:
    return array.clone() if hasattr(array, "clone") else array.copy()
