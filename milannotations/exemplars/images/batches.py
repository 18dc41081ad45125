"""Batches of images, in an order and composition that do not depend on who loads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.exemplars.images.decode import UnreadableImageError

if TYPE_CHECKING:
    from torch import Tensor

Arguments = Callable[[Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Batch:
    """Some images: int64 `ids`, the network's `arguments`, and `unreadable` ones with the reason.

    `concepts` are bool (image, concept, H, W) or label planes, int32 (image, plane, H, W).
    """

    ids: Tensor
    arguments: tuple[Tensor, ...]
    concepts: Tensor | None
    unreadable: tuple[tuple[int, str], ...]


def select_image(item: Any) -> tuple[Any, ...]:
    """Return the network's arguments of a data set's item: its picture, the first of a tuple.

    Raises:
        InputError: the item is, or holds, no tensor.
    """
    import torch

    found = item
    if isinstance(item, Mapping):
        found = next((item[key] for key in ("image", "pixel_values") if key in item), None)
    elif isinstance(item, (tuple, list)) and item:
        found = item[0]
    if not isinstance(found, torch.Tensor):
        raise InputError(
            f"An item of the data set is a {type(item).__name__}"
            + (f" that begins with a {type(found).__name__}" if found is not item else "")
            + "; expected a tensor (3, height, width), alone, first in a tuple, or as 'image' in a "
            "dict. For pictures: milannotations.exemplars.open_images(dataset)."
        )
    return (found,)


def load_batches(
    dataset: Any, numbers: Sequence[int], size: int, workers: int, arguments: Arguments | None
) -> Iterator[Batch]:
    """Yield the batches of these numbers: batch n holds the images from n * size.

    Raises:
        InputError: items that do not stack, or a loading process that died.
    """
    from torch.utils.data import DataLoader

    count = len(dataset)
    loader = DataLoader(
        _Items(dataset, arguments or getattr(dataset, "arguments", None) or select_image),
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
            "again, with fewer --workers if it was memory; with a checkpoint it goes on from there."
        ) from error


class _Items:
    """A data set whose items carry their place, and which names images instead of failing."""

    def __init__(self, dataset: Any, arguments: Arguments) -> None:
        self.dataset, self.arguments = dataset, arguments

    def __getitem__(self, place: int) -> tuple[int, tuple[Any, ...] | str, Any]:
        try:
            item = self.dataset[place]
        except (
            UnreadableImageError,
            OSError,
            SyntaxError,
        ) as error:  # PIL's readers raise all three
            why = error.reason if isinstance(error, UnreadableImageError) else str(error)
            return place, why.splitlines()[0] if why else type(error).__name__, None
        concepts = item.get("concepts") if isinstance(item, Mapping) else None
        return place, self.arguments(item), concepts

    def __len__(self) -> int:
        return len(self.dataset)


def _collate(items: Sequence[tuple[int, tuple[Any, ...] | str, Any]]) -> Batch:
    import torch
    from torch.utils.data import default_collate

    bad = tuple((place, found) for place, found, _ in items if isinstance(found, str))
    good = [(place, found, c) for place, found, c in items if not isinstance(found, str)]
    ids = torch.tensor([place for place, *_ in good], dtype=torch.int64)
    if not good:
        return Batch(ids, (), None, bad)
    try:
        arguments = tuple(default_collate([found for _, found, _ in good]))
    except RuntimeError as error:
        sizes = sorted({tuple(found[0].shape) for _, found, _ in good})
        raise InputError(
            f"Images of several sizes: {', '.join(map(str, sizes[:3]))}. The preprocessing is to "
            "give all of them one size."
        ) from error
    concepts = None if good[0][2] is None else _stacked([concepts for *_, concepts in good])
    return Batch(ids, arguments, concepts, bad)


def _stacked(concepts: Sequence[Any]) -> Tensor:
    """Return the concepts of a batch: label planes, if they are signed integers, else bool.

    Images with fewer planes than others get empty ones.

    Raises:
        InputError: some have none, or they differ in size.
    """
    import torch
    from torch.nn import functional as nnf

    planes = (torch.int16, torch.int32, torch.int64)
    if any(each is None for each in concepts):
        raise InputError("Some items of the data set have 'concepts', others none.")
    maps = [torch.as_tensor(each) for each in concepts]
    whole = all(each.dtype in planes for each in maps)
    maps = [each.int() if whole else each.bool() for each in maps]
    most = max(len(each) for each in maps)
    if whole:
        maps = [nnf.pad(each, (0, 0, 0, 0, 0, most - len(each))) for each in maps]
    if len({each.shape for each in maps}) > 1:
        sizes = sorted({tuple(each.shape) for each in maps})
        raise InputError(
            f"Concepts of several sizes: {', '.join(map(str, sizes[:3]))}; expected one size, and "
            "for bool maps one number of concepts."
        )
    return torch.stack(maps)
