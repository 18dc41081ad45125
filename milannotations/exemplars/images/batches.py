"""Batches of images, whose order and composition do not depend on the processes that load them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.exemplars.images.decode import UnreadableImageError

if TYPE_CHECKING:
    from torch import Tensor

Arguments = Callable[[Any], tuple[Any, ...]]
"""Function from an item of a dataset to the arguments of the network."""


@dataclass(frozen=True)
class Batch:
    """Images of one batch.

    Attributes:
        ids: int64 (image,), indices into the dataset.
        arguments: arguments of the network, with the images along their first axis.
        concepts: concept masks, bool (image, concept, h, w), or label planes, int32
            (image, plane, h, w); None if the dataset has none.
        unreadable: index of each image that could not be read, and why.
    """

    ids: Tensor
    arguments: tuple[Tensor, ...]
    concepts: Tensor | None
    unreadable: tuple[tuple[int, str], ...]


def select_image(item: Any) -> tuple[Any, ...]:
    """Return the image of a dataset's item, as the only argument of the network.

    Args:
        item: a tensor, a tuple that begins with one, or a dict with `image` or `pixel_values`.

    Raises:
        InputError: no tensor there.
    """
    import torch

    image = item
    if isinstance(item, Mapping):
        image = next((item[key] for key in ("image", "pixel_values") if key in item), None)
    elif isinstance(item, (tuple, list)) and item:
        image = item[0]
    if not isinstance(image, torch.Tensor):
        raise InputError(
            f"An item of the dataset is a {type(item).__name__}"
            + (f" that begins with a {type(image).__name__}" if image is not item else "")
            + "; expected a tensor (3, height, width), alone, first in a tuple, or as 'image' in a "
            "dict. For images: milannotations.exemplars.open_images(dataset)."
        )
    return (image,)


def load_batches(
    dataset: Any, numbers: Sequence[int], size: int, workers: int, arguments: Arguments | None
) -> Iterator[Batch]:
    """Load batches of a dataset.

    Args:
        dataset: items by index.
        numbers: which batches; batch n holds the images from n * size on.
        size: images per batch.
        workers: processes that load images; 0 for this process.
        arguments: function from an item to the network's arguments; None for the dataset's own
            `arguments`, or else its image.

    Yields:
        The batches, in the order of `numbers`.

    Raises:
        InputError: items that cannot be stacked, or a loading process that died.
    """
    from torch.utils.data import DataLoader

    count = len(dataset)
    loader = DataLoader(
        _IndexedItems(dataset, arguments or getattr(dataset, "arguments", None) or select_image),
        batch_sampler=[range(n * size, min((n + 1) * size, count)) for n in numbers],
        num_workers=workers,
        collate_fn=_collate,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            "A process that loads images died (killed, or out of memory). Run the same command "
            "again, with fewer --workers if memory was short; with a checkpoint it resumes there."
        ) from error


_Loaded = tuple[int, tuple[Any, ...] | str, Any]
"""Index of an item, its arguments or why it cannot be read, and its concepts."""


class _IndexedItems:
    """Dataset of items with their index, in which an unreadable image is an item, not an error.

    An error in a loading process would end the pass, and it would not name the image.
    """

    def __init__(self, dataset: Any, arguments: Arguments) -> None:
        self.dataset, self.arguments = dataset, arguments

    def __getitem__(self, index: int) -> _Loaded:
        try:
            item = self.dataset[index]
        # the readers of Pillow raise both of the other types
        except (UnreadableImageError, OSError, SyntaxError) as error:
            reason = error.reason if isinstance(error, UnreadableImageError) else str(error)
            return index, reason.splitlines()[0] if reason else type(error).__name__, None
        concepts = item.get("concepts") if isinstance(item, Mapping) else None
        return index, self.arguments(item), concepts

    def __len__(self) -> int:
        return len(self.dataset)


def _collate(items: Sequence[_Loaded]) -> Batch:
    """Stack items to a batch, and list those that could not be read."""
    import torch
    from torch.utils.data import default_collate

    unreadable = tuple((i, reason) for i, reason, _ in items if isinstance(reason, str))
    readable = [(i, args, concepts) for i, args, concepts in items if not isinstance(args, str)]
    ids = torch.tensor([i for i, *_ in readable], dtype=torch.int64)
    if not readable:
        return Batch(ids, (), None, unreadable)
    try:
        arguments = tuple(default_collate([args for _, args, _ in readable]))
    except RuntimeError as error:
        sizes = sorted({tuple(args[0].shape) for _, args, _ in readable})
        raise InputError(
            f"Images of several sizes: {', '.join(map(str, sizes[:3]))}; expected one size. Give a "
            "preprocessing that crops or resizes all of them: --preprocess imagenet."
        ) from error
    concepts = None
    if readable[0][2] is not None:
        concepts = _stack_concepts([concepts for *_, concepts in readable])
    return Batch(ids, arguments, concepts, unreadable)


def _stack_concepts(concepts: Sequence[Any]) -> Tensor:
    """Stack the concepts of a batch: label planes if they are signed integers, else bool masks.

    Images with fewer label planes than others get empty ones.

    Raises:
        InputError: some images have none, or they differ in size.
    """
    import torch
    from torch.nn import functional as nnf

    integers = (torch.int16, torch.int32, torch.int64)
    if any(part is None for part in concepts):
        raise InputError("Some items of the dataset have 'concepts', others have none.")
    maps = [torch.as_tensor(part) for part in concepts]
    are_labels = all(part.dtype in integers for part in maps)
    maps = [part.int() if are_labels else part.bool() for part in maps]
    most = max(len(part) for part in maps)
    if are_labels:
        maps = [nnf.pad(part, (0, 0, 0, 0, 0, most - len(part))) for part in maps]
    if len({part.shape for part in maps}) > 1:
        sizes = sorted({tuple(part.shape) for part in maps})
        raise InputError(
            f"Concepts of several sizes: {', '.join(map(str, sizes[:3]))}; expected one size, and "
            "for bool masks one number of concepts."
        )
    return torch.stack(maps)
