"""The exception for errors that the user can fix, and helpers for its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Error in the user's input. The message says what came, what was expected, what to type next.

    The command line prints the message without a traceback and exits with status 1. Any other
    exception is a bug and keeps its traceback.
    """


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.75) -> str:
    """Return " Did you mean 'x'?" for the closest known name; "" if none is close.

    Example:
        >>> did_you_mean("resnet152-imgnet", ["resnet152-imagenet", "alexnet-imagenet"])
        " Did you mean 'resnet152-imagenet'?"
        >>> did_you_mean("zebra", ["resnet152-imagenet"])
        ''
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def some(items: Iterable[object], limit: int = 5) -> str:
    """Join the first few items for an error message, with the number of all.

    Example:
        >>> some(["conv1/0", "conv1/1", "conv1/2"], limit=2)
        'conv1/0, conv1/1, ... (3 in all)'
    """
    listed = [str(item) for item in items]
    if len(listed) <= limit:
        return ", ".join(listed)
    return ", ".join(listed[:limit]) + f", ... ({len(listed):,} in all)"
