"""Weights: reading them from files, and loading them into networks."""

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
"""Entry in which batch norm counts training batches; nothing depends on it in evaluation."""


def read(path: str | os.PathLike[str]) -> StateDict:
    """Read the tensors of a file of weights, by name.

    The file is safetensors or what `torch.save` wrote, and is read without running code in it. The
    network's state may lie one level down (`{"state_dict": ..., "epoch": ...}`).

    Args:
        path: .safetensors, or .pth, .pt, .th, .bin; the content decides, not the suffix.

    Raises:
        InputError: no such file; damaged; a pickle of more than tensors; no state in it, or
            several.
    """
    path = check_is_file(path)
    return extract_state(_read_content(path), path)


def load_tensors(path: Path) -> Any:
    """Load what `torch.save` wrote: tensors, numbers, strings and containers of them.

    Raises:
        InputError: the file is damaged, or holds anything else.
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
            'code. If you trust it, convert it to safetensors: python -c "import torch; from '
            "safetensors.torch import save_file; "
            f"save_file(torch.load('{path.name}', map_location='cpu', weights_only=False)"
            f"['state_dict'], '{path.stem}.safetensors')\""
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError) as error:
        raise _unreadable(path, error) from None


def _read_content(path: Path) -> Any:
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
    # safetensors begins with the length of its header (8 bytes, little endian), which is JSON
    with open(path, "rb") as stream:
        head = stream.read(9)
    return path.suffix == ".safetensors" or (
        head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"{path} cannot be read as weights ({reason}). Expected safetensors, or a .pth that "
        "torch.save wrote; is the copy complete?"
    )


def _is_state(value: Any) -> bool:
    """Return whether an object is a network's state: a flat mapping of names to tensors."""
    import torch

    return (
        isinstance(value, Mapping)
        and all(isinstance(key, str) for key in value)
        and any(isinstance(entry, torch.Tensor) for entry in value.values())
        and not any(isinstance(entry, Mapping) for entry in value.values())
    )


def extract_state(content: Any, path: Path) -> StateDict:
    """Return the network's state in the content of a file: all of it, or one entry of it.

    Args:
        content: what the file holds.
        path: the file, for messages.

    Raises:
        InputError: no state, or several.
    """
    import torch

    if not _is_state(content):
        entries = dict(content) if isinstance(content, Mapping) else {}
        states = [key for key, value in entries.items() if _is_state(value)]
        if len(states) > 1:
            raise InputError(
                f"{path} holds the weights of several networks: {some(states)}. Save the one you "
                f"mean: python -c \"import torch; torch.save(torch.load('{path.name}', "
                f"weights_only=True)['{states[0]}'], '{states[0]}.pth')\""
            )
        if not states:
            what = f"a dict of {some(entries)}" if entries else f"a {type(content).__name__}"
            raise InputError(
                f"{path} holds {what}; expected a network's state: tensors by name, as "
                "torch.save(network.state_dict(), FILE) writes them."
            )
        content = entries[states[0]]
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


def match_names(state: StateDict, names: Iterable[str]) -> StateDict:
    """Rename the entries of a state to those of a network by exchanging their common prefix.

    Wrappers put a prefix before all names: `module.` (DataParallel), `_orig_mod.`
    (torch.compile), `model.` (Lightning), alone or nested. Every prefix that all entries of the
    state share is exchanged for every prefix that all entries of the network share, and the pair
    that gives the most common names wins; the shortest, if several do.

    Args:
        state: tensors by name.
        names: names of the network's entries.

    Returns:
        The state itself if no exchange gives more common names.

    Example:
        >>> sorted(match_names({"module.a.w": 1, "module.b.w": 2}, ["a.w", "b.w", "c.w"]))
        ['a.w', 'b.w']
    """
    # The names alone decide, not a list of known wrappers, so that any wrapper works. A module that
    # is really called `model` keeps its name: without it fewer names would be the network's.
    expected = set(names)
    best, best_count = state, len(expected & set(state))
    for old in _common_prefixes(state):
        for new in _common_prefixes(expected):
            renamed = {new + key[len(old) :]: value for key, value in state.items()}
            count = len(expected & set(renamed))
            if count > best_count:  # strictly, so that the shortest exchange wins
                best, best_count = renamed, count
    return best


def _common_prefixes(names: Iterable[str]) -> list[str]:
    """Return the dotted prefixes that all names share, from none to the longest.

    The last part of a name is never in a prefix: `a.w` and `a.b` share "" and "a.".
    """
    paths = [name.split(".")[:-1] for name in names]
    common = []
    for parts in zip(*paths, strict=False):  # ends with the shortest name
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ["".join(f"{part}." for part in common[:n]) for n in range(len(common) + 1)]


def infer_class_count(network: nn.Module, state: StateDict) -> int | None:
    """Return the number of classes of a state, if that is all in which it does not fit a network.

    Weights of ResNet-18 for the 365 classes of Places fit a ResNet-18 with 365 classes.

    Returns:
        None if the state fits, or differs in anything but the first axis of its last layer.
    """
    expected = network.state_dict()
    shapes = [
        (expected[key].shape, value.shape)
        for key, value in match_names(state, expected).items()
        if key in expected
    ]
    unlike = [(ours, theirs) for ours, theirs in shapes if ours != theirs]
    # weight (class, feature) and bias (class,) differ in their first axis, and in nothing else
    if not unlike or any(not ours or ours[1:] != theirs[1:] for ours, theirs in unlike):
        return None
    # several sizes would be several layers that do not fit
    if len({ours[0] for ours, _ in unlike}) > 1 or len({theirs[0] for _, theirs in unlike}) > 1:
        return None
    return int(unlike[0][1][0])


def load_into(
    network: nn.Module, state: StateDict, path: str | os.PathLike[str]
) -> tuple[str, ...]:
    """Load a state into a network, in the network's own types.

    Args:
        network: the network, changed in place.
        state: tensors by name, with any common prefix.
        path: file that the state came from, for messages.

    Returns:
        Entries of the network that the state lacks, in order, except batch norm's counters and
        entries that share their memory with one that the state has.

    Raises:
        InputError: the state has entries that the network lacks, or of another shape or kind; or
            none that the network has.
    """
    expected = network.state_dict()
    state = match_names(state, expected)
    unexpected = [k for k in state if k not in expected and not k.endswith(BATCH_COUNTER)]
    unlike = [k for k in state if k in expected and state[k].shape != expected[k].shape]
    if not any(k in expected for k in state):
        raise InputError(
            f"{path} holds no weights of this network: {some(state, 3)}; expected names such as "
            f"{some(expected, 3)}."
        )
    if unlike:
        shapes = [f"{k} {_shape(state[k])}, not {_shape(expected[k])}" for k in unlike]
        raise InputError(
            f"{path} does not fit this network; of other shapes are {some(shapes, 3)}. "
            "Name the network that it was saved from."
        )
    if unexpected:
        raise InputError(
            f"{path} does not fit this network, which has no {some(unexpected, 3)}; "
            f"{len(state) - len(unexpected):,} of the file's {len(state):,} entries fit. "
            "Name the network that it was saved from."
        )
    state = {k: v for k, v in state.items() if k in expected}
    quantised = [
        k for k in state if expected[k].is_floating_point() and not state[k].is_floating_point()
    ]
    if quantised:
        raise InputError(
            f"{path} holds integers for {some(quantised, 3)} ({state[quantised[0]].dtype}): "
            "quantised weights. Expected floats; convert them first."
        )
    network.load_state_dict(state, strict=False)
    # Tied entries are one tensor under several names, and files may hold it under one of them.
    loaded = {expected[k].data_ptr() for k in state if expected[k].numel()}
    return tuple(
        k
        for k, v in expected.items()
        if k not in state and not k.endswith(BATCH_COUNTER) and v.data_ptr() not in loaded
    )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
