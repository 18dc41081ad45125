"""HTTP requests that are tried again: which failures pass, how long to pause, when to give up.

urllib3's `Retry` counts the attempts, grows the pauses and reads Retry-After. The loop is ours,
because what counts as success is in the body: half a download, or JSON that is no answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from milannotations.errors import InputError

if TYPE_CHECKING:
    import requests

LONGEST_PAUSE = 60.0
"""Seconds; pauses between attempts are 1, 2, 4, ... and never longer than this."""

LONGEST_WAIT = 600.0
"""Longest Retry-After in seconds that is obeyed; a server that asks for more is left alone."""

T = TypeVar("T")

_pause = time.sleep


class TemporaryFailure(Exception):  # noqa: N818
    """Failure of a request that may succeed when tried again.

    Attributes:
        retry_after: pause in seconds that the server asks for; None if it asks for none.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RetriesExhausted(Exception):  # noqa: N818
    """Last failure of a request that was tried as often as allowed; its message is the cause."""


def retry(
    request: Callable[[], T],
    *,
    attempts: int,
    tell: Callable[[str], object],
    received: Callable[[], int] = lambda: 0,
    redact: Callable[[str], str] = str,
) -> T:
    """Return what `request` returns, calling it again after each temporary failure.

    Args:
        request: makes one request; raises TemporaryFailure, or any exception of requests, where
            another attempt may succeed.
        attempts: calls in a row that may fail before the request is given up.
        tell: called with one line (cause and pause) before each pause.
        received: total number of bytes that have arrived so far. The count of failures starts
            again whenever it grows.
        redact: removes secrets from the text of a cause.

    Raises:
        RetriesExhausted: `attempts` calls in a row failed.
    """
    import requests
    from urllib3.exceptions import MaxRetryError
    from urllib3.util import Retry

    fresh = Retry(total=attempts - 1, backoff_factor=1, backoff_max=LONGEST_PAUSE)
    state, most = fresh, received()
    while True:
        try:
            return request()
        except (TemporaryFailure, requests.RequestException) as error:
            message, asked = cause(redact(str(error))), getattr(error, "retry_after", None)
        if received() > most:
            state, most = fresh, received()
        try:
            state = state.increment()
        except MaxRetryError:
            raise RetriesExhausted(message) from None
        # urllib3 makes the first retry at once; a server that has just failed needs a second
        pause = max(1.0, state.get_backoff_time()) if asked is None else asked
        tell(f"{message}; again in {pause:.0f} s")
        _pause(pause)


def temporary_failure(
    response: requests.Response, url: str, message: str, advice: str
) -> TemporaryFailure:
    """Return the failure that a status such as 429 or 503 stands for, with its Retry-After.

    Args:
        response: as it came.
        url: as it is shown to the user, without secrets.
        message: what the server answered.
        advice: end of the message where the server asks for too long a pause.

    Raises:
        InputError: the server asks for more than `LONGEST_WAIT`.
    """
    seconds = retry_after(response.headers.get("Retry-After"))
    if seconds is not None and seconds > LONGEST_WAIT:
        raise InputError(
            f"{url} is busy ({message}) and asks to be left alone for {seconds:,.0f} s. "
            f"Run this again then; {advice}"
        )
    return TemporaryFailure(message, seconds)


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or as a date.

    Example:
        >>> retry_after("17"), retry_after("0.5"), retry_after("Sun, 06 Nov 1994 08:49:37 GMT")
        (17.0, 0.5, 0.0)
        >>> retry_after("soon"), retry_after("inf")
        (None, None)
    """
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    if header is None:
        return None
    try:
        # some servers send fractions, which the standard does not have
        seconds = float(header)
    except ValueError:
        try:
            seconds = Retry().parse_retry_after(header)
        except InvalidHeader:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def is_http_url(text: str) -> bool:
    """Return True for an http or https address with a host and, if any, a valid port.

    Example:
        >>> [is_http_url(text) for text in ("http://a.example/x", "ftp://a/x", "http://a:b/")]
        [True, False, False]
    """
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def cause(message: str) -> str:
    """Return the end of a message of requests, which quotes the messages of all layers below."""
    return message.rsplit("(Caused by ", 1)[-1].rstrip(")")[-300:]
