"""Download of one large file that continues after broken connections and interrupted runs.

FOLDER/
  NAME.part        bytes that have arrived so far
  NAME.part.json   address, size and validator (ETag or date) of the file they are part of
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.published.lock_file import Pin
from milannotations.utils.files import replacing
from milannotations.utils.http import RetriesExhausted, TemporaryFailure, retry, temporary_failure

if TYPE_CHECKING:
    import requests

ATTEMPTS = 8
"""Requests in a row that may bring nothing new before the download is given up."""

TIMEOUT = 30.0
"""Seconds without a byte after which a request has failed."""

CHUNK = 1 << 16
"""Bytes read at once, and most bytes lost when a connection breaks."""

RETRY_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
"""HTTP statuses that may be gone at the next attempt."""


@dataclass(frozen=True)
class _Source:
    """File that a part belongs to: its whole size, and what If-Range compares, if known."""

    size: int
    validator: str | None


class ResumableDownload:
    """Downloader for `pooch.retrieve` that continues a `.part` file and tries again.

    A part is continued only if the server can tell that it is still of the same file (If-Range
    with its ETag or its date), or if the checksum of the whole file is known.

    Args:
        target: path of the whole file; the parts lie beside it.
        pin: its expected size and checksum, if known.
        tell: called with a line for the user before each pause.
        progress: show a progress bar on a terminal.
        mirror_variable: environment variable that names a mirror, for messages.
        advice: end of the message if the server does not have the file.

    Attributes:
        resumed: True if the part began with bytes of an earlier request.
    """

    def __init__(
        self,
        target: Path,
        pin: Pin | None,
        *,
        tell: Callable[[str], None],
        progress: bool,
        mirror_variable: str,
        advice: str,
    ) -> None:
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.facts = target.with_name(f"{target.name}.part.json")
        self.pin, self.tell, self.progress = pin, tell, progress
        self.mirror_variable, self.advice = mirror_variable, advice
        self.resumed = False

    def __call__(self, url: str, output_file: str, _: Any = None) -> None:
        """Download `url` to `output_file`; called by pooch.

        Raises:
            InputError: the file cannot be fetched, has another size than expected, or does not
                fit on the disk.
        """
        try:
            retry(
                lambda: self._request(url),
                attempts=ATTEMPTS,
                tell=lambda line: self.tell(f"{self.target.name}: {line}."),
                received=self._received,
            )
        except RetriesExhausted as cause:
            raise InputError(
                f"{url} could not be fetched in {ATTEMPTS} attempts ({cause}). "
                f"{self._received():,} bytes are kept; run this again to resume, or name a "
                f"mirror in {self.mirror_variable}."
            ) from None
        # a second name for the same bytes: if pooch is interrupted while it computes the
        # checksum, and removes its file, the part is still there
        Path(output_file).unlink(missing_ok=True)
        try:
            os.link(self.part, output_file)
        except OSError:  # not every file system has links
            self.part.replace(output_file)

    def discard(self) -> None:
        """Remove the bytes that have arrived."""
        self.part.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)
        self.resumed = False

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _source(self, url: str) -> _Source | None:
        """Return the file that the part can be continued as; None if it must start again."""
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
            if facts["url"] == url and facts["validator"] is not None:
                return _Source(int(facts["size"]), str(facts["validator"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return _Source(self.pin.size, None) if self.pin else None

    def _request(self, url: str) -> None:
        """Make one request and append its bytes; return once the part is whole.

        Raises:
            TemporaryFailure, requests.RequestException: bytes are missing; try again.
            InputError: trying again would not help.
        """
        import requests

        source, begin = self._source(url), self._received()
        if source is not None and begin == source.size and begin:
            self.resumed = True
            return
        if source is None or begin > source.size:
            begin = 0
        # no compression: Range and Content-Length count the bytes that are sent
        headers = {"Accept-Encoding": "identity"}
        if begin and source:
            headers["Range"] = f"bytes={begin}-"
            if source.validator is not None:
                # the server answers 200 with the whole file if it has changed since
                headers["If-Range"] = source.validator
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            self._check_status(response, url)
            if begin and source and response.status_code == 206:
                size = source.size
                if response.headers.get("Content-Range") != f"bytes {begin}-{size - 1}/{size}":
                    self.discard()
                    raise TemporaryFailure("the server answered with another part of the file")
                self.resumed = True
            else:
                begin, size = 0, self._whole_size(response, url)
                self.discard()
            self._check_disk(size - begin)
            if not begin:
                self.part.touch()
                facts = {"url": url, "size": size, "validator": _validator(response)}
                with replacing(self.facts) as temporary:
                    temporary.write_text(json.dumps(facts), encoding="utf-8")
            self._append(response, begin, size)
        if self._received() != size:
            raise TemporaryFailure(
                f"the server closed after {self._received():,} of {size:,} bytes"
            )

    def _append(self, response: requests.Response, begin: int, size: int) -> None:
        """Append the body of a response to the part."""
        from tqdm.auto import tqdm

        with (
            open(self.part, "ab") as stream,
            tqdm(
                total=size,
                initial=begin,
                unit="B",
                unit_scale=True,
                desc=self.target.name,
                # None: tqdm shows the bar only if stderr is a terminal
                disable=None if self.progress else True,
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                if stream.tell() + len(chunk) > size:
                    raise InputError(
                        f"{response.url} sends more than the {size:,} bytes that were expected."
                    )
                try:
                    stream.write(chunk)
                    stream.flush()
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        self._check_disk(size - self._received(), full=True)
                    raise
                bar.update(len(chunk))
            os.fsync(stream.fileno())

    def _check_disk(self, needed: int, full: bool = False) -> None:
        """Raise InputError if the disk is full, or has less room than the missing bytes need."""
        free = shutil.disk_usage(self.part.parent).free
        if full or free < needed:
            raise InputError(
                f"The disk is full: {self.part.parent} needs {needed:,} more bytes and has "
                f"{free:,}. Make room and run this again; what has arrived is kept."
            )

    def _whole_size(self, response: requests.Response, url: str) -> int:
        """Return the size of the whole file, by the server or by the lock file.

        Raises:
            InputError: neither tells it, or they disagree.
        """
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise InputError(
                f"{url} is sent compressed, so its size cannot be checked. Use another mirror "
                f"({self.mirror_variable})."
            )
        length = response.headers.get("Content-Length")
        if length is None and self.pin is None:
            raise InputError(
                f"{url}: the server does not say how long the file is and no checksum is known, "
                "so half of it could not be told from all of it. Use another mirror "
                f"({self.mirror_variable})."
            )
        size = self.pin.size if length is None and self.pin else int(length or 0)
        if self.pin is not None and size != self.pin.size:
            raise InputError(
                f"{url} has {size:,} bytes; the lock file says {self.pin.size:,} bytes, sha256 "
                f"{self.pin.sha256}. If the publisher has changed the file and you trust the "
                "new one, remove its entry from the lock file; else try another mirror "
                f"({self.mirror_variable})."
            )
        return size

    def _check_status(self, response: requests.Response, url: str) -> None:
        """Raise what a status means, unless it comes with bytes of the file."""
        status = response.status_code
        if status in (200, 206):
            return
        if status == 416:
            # the part is longer than the file
            self.discard()
            raise TemporaryFailure("the server has no more of the file than has arrived")
        if status in RETRY_STATUSES:
            message = f"the server answered with status {status}"
            raise temporary_failure(response, url, message, "what has arrived is kept.")
        raise InputError(
            f"{url} is not available: status {status} {response.reason}. Name a mirror in "
            f"{self.mirror_variable}. {self.advice}"
        )


def _validator(response: requests.Response) -> str | None:
    """Return what If-Range can compare: a strong ETag, else the date."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    return response.headers.get("Last-Modified")
