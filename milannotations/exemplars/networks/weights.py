"""Weights out of files, and into networks."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, some
from milannotations.utils.files import begins_with, check_is_file

if TYPE_CHECKING:
    from torch import Tensor, nn

StateDict = dict[str, "Tensor"]

BATCH_COUNTER = "num_batches_tracked"
"""What batch norm counts while it is trained: nothing depends on it in evaluation."""


def read(path: str | os.PathLike[str]) -> StateDict:
    """Return the tensors of a file of weights, by name.

    Safetensors, or what `torch.save` wrote, read without running anything in it. A network's
    state may lie one level in (`{"state_dict": ..., "epoch": ...}`).

    Args:
        path: .safetensors, or .pth, .pt, .th, .bin; what counts is the content.

    Raises:
        InputError: no such file; damaged; a pickle of more than tensors; no state in it, or
            several.
    """
    path = check_is_file(path)
    return extract_state(_contents(path), path)


def load_tensors(path: Path) -> Any:
    """Return what `torch.save` wrote: tensors, numbers, strings and containers of them.

    Raises:
        InputError: there is anything else in it, or it is damaged.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL `?([\w.]+)", str(error))
        if refused is None:
            raise _unreadable(path, error) from None
        raise InputError(
            f"{path} holds Python objects beside tensors ({refused[1]}), and loading those runs "
            'code. Where you trust it, convert it to safetensors: python -c "import torch; from '
            "safetensors.torch import save_file; "
            f"save_file(torch.load('{path.name}', map_location='cpu', weights_only=False)"
            f"['state_dict'], '{path.stem}.safetensors')\""
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError) as error:
        raise _unreadable(path, error) from None


def _contents(path: Path) -> Any:
    if begins_with(path, b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not the file itself: git lfs pull")
    if not _is_safetensors(path):
        return load_tensors(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(9)
    return path.suffix == ".safetensors" or (
        head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"{path} cannot be read as weights ({why}). Expected safetensors, or a .pth that "
        "torch.save wrote; is the copy complete?"
    )


def _is_state(value: Any) -> bool:
    import torch

    return (
        isinstance(value, Mapping)
        and all(isinstance(key, str) for key in value)
        and any(isinstance(entry, torch.Tensor) for entry in value.values())
        and not any(isinstance(entry, Mapping) for entry in value.values())
    )


def extract_state(content: Any, path: Path) -> StateDict:
    """Return the state in what a file holds: itself, or the one state a level in.

    Raises:
        InputError: none is there, or several are.
    """
    import torch

    if not _is_state(content):
        inside = dict(content) if isinstance(content, Mapping) else {}
        states = [key for key, value in inside.items() if _is_state(value)]
        if len(states) > 1:
            raise InputError(
                f"{path} holds several networks' weights: {some(states)}. Save the one that is "
                f"meant: python -c \"import torch; torch.save(torch.load('{path.name}', "
                f"weights_only=True)['{states[0]}'], '{states[0]}.pth')\""
            )
        if not states:
            what = f"a dict of {some(inside)}" if inside else f"a {type(content).__name__}"
            raise InputError(
                f"{path} holds {what}; expected a network's state: tensors by name, as "
                "torch.save(network.state_dict(), FILE) writes them."
            )
        content = inside[states[0]]
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


def match_names(state: StateDict, names: Iterable[str]) -> StateDict:
    """Return a state under the names of a network, once a common beginning is put off or on.

    `module.`, `_orig_mod.`, `model.` and others, alone or one after the other, go if all
    entries begin so and more of them are then the network's.

    Example:
        >>> sorted(match_names({"module.a.w": 1, "module.b.w": 2}, ["a.w", "b.w", "c.w"]))
        ['a.w', 'b.w']
    """
    own = set(names)
    best, matched = state, len(own & set(state))
    for off in _beginnings(state):
        for on in _beginnings(own):
            made = {on + key[len(off) :]: value for key, value in state.items()}
            found = len(own & set(made))
            if found > matched:
                best, matched = made, found
    return best


def _beginnings(names: Iterable[str]) -> list[str]:
    """Return the dotted beginnings that all names share, from none to the longest."""
    split = [name.split(".")[:-1] for name in names]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ["".join(f"{part}." for part in common[:n]) for n in range(len(common) + 1)]


def infer_class_count(network: nn.Module, state: StateDict) -> int | None:
    """Return how many classes a state tells apart, if that is all in which it does not fit.

    Weights of ResNet-18 for the 365 classes of Places fit a ResNet-18 of 365 classes.
    """
    own = network.state_dict()
    pairs = [(own[k].shape, v.shape) for k, v in match_names(state, own).items() if k in own]
    unlike = [(mine, theirs) for mine, theirs in pairs if mine != theirs]
    if not unlike or any(not mine or mine[1:] != theirs[1:] for mine, theirs in unlike):
        return None
    if len({mine[0] for mine, _ in unlike}) > 1 or len({theirs[0] for _, theirs in unlike}) > 1:
        return None
    return int(unlike[0][1][0])


def load_into(
    network: nn.Module, state: StateDict, path: str | os.PathLike[str]
) -> tuple[str, ...]:
    """Load a state into a network, in the network's own dtype.

    Args:
        path: where the state came from, for messages.

    Returns:
        The network's entries that the state lacks, in order, but for batch norm's counters.

    Raises:
        InputError: entries that the network has not, or of another shape; or none fits.
    """
    own = network.state_dict()
    state = match_names(state, own)
    beyond = [k for k in state if k not in own and not k.endswith(BATCH_COUNTER)]
    unlike = [k for k in state if k in own and state[k].shape != own[k].shape]
    if not any(k in own for k in state):
        raise InputError(
            f"{path} holds no weights of this network: {some(state, 3)}; expected names such as "
            f"{some(own, 3)}."
        )
    if unlike:
        said = [f"{k} {_shape(state[k])}, not {_shape(own[k])}" for k in unlike]
        raise InputError(
            f"{path} does not fit this network; of other shapes are {some(said, 3)}. "
            "Name the network that it was saved from."
        )
    if beyond:
        raise InputError(
            f"{path} does not fit this network, which has no {some(beyond, 3)}; "
            f"{len(state) - len(beyond):,} of the file's {len(state):,} entries fit. "
            "Name the network that it was saved from."
        )
    state = {k: v for k, v in state.items() if k in own}
    packed = [k for k in state if own[k].is_floating_point() and not state[k].is_floating_point()]
    if packed:
        raise InputError(
            f"{path} holds whole numbers for {some(packed, 3)} ({state[packed[0]].dtype}): "
            "quantised weights. Expected floats; convert them first."
        )
    network.load_state_dict(state, strict=False)
    shared = {own[k].data_ptr() for k in state if own[k].numel()}
    return tuple(
        k
        for k, v in own.items()
        if k not in state and not k.endswith(BATCH_COUNTER) and v.data_ptr() not in shared
    )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
