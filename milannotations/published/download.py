"""What was published, fetched whole or not at all, and known again by its checksum.

    FOLDER/
      alexnet-imagenet.zip            whole, and verified
      alexnet-imagenet.zip.part       what has arrived so far; .part.json says of what
      milannotations.lock.json        url, size and sha256 of every archive seen here

Archives of exemplars and annotations, and the models of 2022, which are zip files too (`MODELS`).

No checksum of them was ever published, so the first download is taken at its word
and written into the lock file. From then on another file under the same name is an error: share
the lock file, and everyone has the same bytes.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from milannotations.catalog import NETWORKS, canonical
from milannotations.errors import InputError, did_you_mean
from milannotations.utils.files import check_is_file, replacing, sha256

if TYPE_CHECKING:
    import requests

PUBLISHED = "http://milan.csail.mit.edu/data"
"""Where the authors put the archives."""

BASE_VARIABLE = "MILANNOTATIONS_URL"
"""Environment variable that names a mirror: the address of the folder that holds the archives."""

MODELS_VARIABLE = "MILAN_MODELS_URL"
"""The same, of the folder that holds the models."""

LOCK = "milannotations.lock.json"
ATTEMPTS = 8
"""Requests in a row that may bring nothing new before the download is given up."""

LONGEST_PAUSE = 60.0
"""Seconds: pauses between attempts are 1, 2, 4, ... and no longer than this."""

LONGEST_WAIT = 600.0
"""Seconds that a server may ask for in Retry-After; one that asks for more is left alone."""

TIMEOUT = 30.0
CHUNK = 1 << 16
"""Bytes that may be lost when a connection breaks."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that may be gone at the next attempt."""

_pause = time.sleep

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Kind:
    """What was published at one address.

    Attributes:
        what: one of them is called.
        files: by name.
        published: address of the folder that holds them.
        variable: environment variable that names a mirror of that folder.
        at_hand: how one is given that is on this machine.
    """

    what: str
    files: dict[str, str]
    published: str
    variable: str
    at_hand: str


ARCHIVES = Kind(
    "archive",
    {name: network.archive for name, network in NETWORKS.items()},
    PUBLISHED,
    BASE_VARIABLE,
    "An archive on this machine is given with --zip.",
)
_MODELS = ("base", "cls", "gen", "imagenet", "places365", "alexnet", "resnet152", "biggan")
MODELS = Kind(
    "model",
    {name: f"milan-{name}.pth" for name in _MODELS},
    "http://milan.csail.mit.edu/models",
    MODELS_VARIABLE,
    "A model on this machine is converted with: milan convert FILE OUT.",
)


@dataclass(frozen=True)
class Pin:
    """What an archive must be: its size in bytes and its sha256; `url` is where it came from."""

    url: str | None
    size: int
    sha256: str


def address(name: str, base: str | None = None, kind: Kind = ARCHIVES) -> str:
    """Return the address of a network's archive, or of a model.

    Args:
        name: a published one's, slashes allowed.
        base: address of the folder that holds the files; None takes the environment
            variable `MILANNOTATIONS_URL` (of models, `MILAN_MODELS_URL`), else the authors'
            server.
        kind: `ARCHIVES` or `MODELS`.

    Raises:
        InputError: no such name; `base` is not an http or https address.

    Example:
        >>> address("alexnet/places365", "https://mirror.example/milan/")
        'https://mirror.example/milan/alexnet-places365.zip'
        >>> address("base", kind=MODELS)
        'http://milan.csail.mit.edu/models/milan-base.pth'
    """
    name = canonical(name)
    if name not in kind.files:
        raise InputError(
            f"No published {kind.what} of '{name}' (published: {', '.join(kind.files)})."
            + did_you_mean(name, kind.files, 0.6)
        )
    base = base or os.environ.get(kind.variable) or kind.published
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise InputError(
            f"{base!r} is not the http or https address of a folder, such as "
            f"{kind.published}. {kind.at_hand}"
        )
    if parts.username is not None:
        raise InputError(
            f"The address on {parts.hostname} holds a user name, which would end up in the lock "
            "file. Put it into ~/.netrc."
        )
    return f"{base.rstrip('/')}/{kind.files[name]}"


def pins(lock: str | os.PathLike[str]) -> dict[str, Pin]:
    """Return what a lock file says of each archive, by file name; nothing where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not Path(lock).exists():
        return {}
    try:
        found = json.loads(check_is_file(lock).read_text(encoding="utf-8"))
        entries = {str(name): Pin(**entry) for name, entry in found["archives"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{lock} is not a lock file of archives ({error}); mend it.") from None
    for name, pin in entries.items():
        whole = isinstance(pin.size, int) and isinstance(pin.sha256, str)
        if not whole or not re.fullmatch(r"[0-9a-f]{64}", pin.sha256):
            raise InputError(
                f"{lock}: {name} needs a size (a whole number of bytes) and a sha256 "
                f"(64 digits 0-9a-f); got {pin.size!r} and {pin.sha256!r}."
            )
    return entries


def fetch(
    name: str,
    folder: str | os.PathLike[str],
    *,
    base: str | None = None,
    lock: str | os.PathLike[str] | None = None,
    require_checksum: bool = False,
    wait: float | None = None,
    tell: Tell | None = None,
    progress: bool = True,
    kind: Kind = ARCHIVES,
) -> Path:
    """Return the path of a network's archive in `folder`, downloaded if it is not there.

    Or of a model, as it was published: `milan.legacy.convert.convert` reads it.

    What has arrived is kept in a `.part` file and continued where the server allows. The
    archive gets its name when its size and its checksum are right. An archive that is there
    already, put by hand perhaps, is verified and asks nothing of the network.

    Args:
        name: a published one's, slashes allowed.
        folder: made if absent.
        base: see `address`.
        lock: the lock file; None takes the one in `folder`. An archive it does not know is
            added to it; what it says is never changed.
        require_checksum: refuse an archive that the lock file does not know.
        wait: seconds to wait while another process fetches the same archive; None waits for
            as long as it takes, 0 not at all.
        tell: is called with a line for the user when there is something to know.
        progress: draw a bar on a terminal.
        kind: `ARCHIVES` or `MODELS`.

    Raises:
        InputError: no such name; the archive is not to be had; it is not what the lock file
            says; no checksum is known and one is required; the disk is full; `wait` is over.
    """
    import filelock

    tell = tell or _silent
    url = address(name, base, kind)
    target = Path(folder) / url.rsplit("/", 1)[1]
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(LOCK) if lock is None else Path(lock)
    guard = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    with _alone(guard, target, wait, tell):
        known = pins(lock).get(target.name)
        if known is None and require_checksum:
            raise InputError(
                f"No checksum of {target.name} is known: {lock} does not name it. Give a lock "
                "file that does, or leave out --require-checksum to record it on first use."
            )
        if target.exists():
            _verify(check_is_file(target), known, lock, kind)
        else:
            _announce(url, known, tell)
            _bring(url, target, known, lock, _Reader(target, known, tell, progress, kind))
        if known is None:
            pin = pins(lock)[target.name]
            tell(f"{target.name}: {pin.size:,} bytes, sha256 {pin.sha256}, recorded in {lock}")
    return target


def _silent(_: str) -> None:
    pass


@contextmanager
def _alone(guard: Any, target: Path, wait: float | None, tell: Tell) -> Iterator[None]:
    """Hold a lock that dies with the process."""
    import filelock

    busy = f"Another process is fetching {target.name} into {target.parent}"
    try:
        try:
            guard.acquire(timeout=0)
        except filelock.Timeout:
            if wait != 0:
                tell(f"{busy}; waiting for it.")
            guard.acquire(timeout=-1 if wait is None else wait)
    except filelock.Timeout:
        raise InputError(f"{busy}. Run this again when it is done.") from None
    try:
        yield
    finally:
        guard.release()


def _announce(url: str, known: Pin | None, tell: Tell) -> None:
    check = "its checksum is known" if known else "no checksum is known: what comes is recorded"
    if url.startswith("http:"):
        tell(f"{url}: plain http, which anyone on the way can read and change; {check}.")
    else:
        tell(f"{url}: {check}.")


def _bring(url: str, target: Path, known: Pin | None, lock: Path, reader: _Reader) -> None:
    """Download to `target` through pooch, which checks the hash before it gives the name."""
    import pooch

    scratch = target.with_name(f".{target.name}.fetched")
    shutil.rmtree(scratch, ignore_errors=True)
    anew = False
    while True:
        try:
            with _quiet(pooch.get_logger()):
                fetched = Path(
                    pooch.retrieve(
                        url,
                        known_hash=f"sha256:{known.sha256}" if known else None,
                        fname=target.name,
                        path=scratch,
                        downloader=reader,
                    )
                )
            break
        except InputError:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        except ValueError as error:  # pooch: the hash is another, and it has removed its copy
            anew = reader.resumed and not anew
            reader.forget()
            if not anew:
                shutil.rmtree(scratch, ignore_errors=True)
                raise InputError(
                    f"{url}: {error} {_advice(target.name, lock, reader.kind)}"
                ) from None
            reader.tell(f"{target.name}: the parts do not fit together; starting anew.")
    try:
        _verify(fetched, known, lock, reader.kind, url)
    except InputError:
        reader.forget()
        shutil.rmtree(scratch)
        raise
    fetched.replace(target)
    reader.forget()
    shutil.rmtree(scratch)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _advice(name: str, lock: Path, kind: Kind) -> str:
    return (
        f"If the publisher has changed the file and you trust the new one, remove the entry "
        f"'{name}' from {lock} and run this again; else try another mirror ({kind.variable})."
    )


def _verify(path: Path, known: Pin | None, lock: Path, kind: Kind, url: str | None = None) -> None:
    """Check a whole archive against its pin, or record what it is.

    Raises:
        InputError: not a zip file; another size or checksum than the lock file's.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as stream:
            head = stream.read(20)
        raise InputError(
            f"{url or path} is not a whole zip file ({path.stat().st_size:,} bytes, beginning "
            f"with {head!r}). " + (f"Is {path.name} at that address?" if url else "Remove it.")
        )
    size = path.stat().st_size
    if url is not None and known is not None:
        return  # pooch has compared the checksums
    digest = "" if known and known.size != size else sha256(path)
    if known is None:
        _record(lock, path.name, Pin(url, size, digest))
    elif digest != known.sha256:
        was = digest or "not computed"
        raise InputError(
            f"{path} has {size:,} bytes, sha256 {was}; {lock} says {known.size:,} bytes, sha256 "
            f"{known.sha256}. Remove the file to fetch it again. " + _advice(path.name, lock, kind)
        )


def _record(lock: Path, name: str, pin: Pin) -> None:
    import filelock

    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock.with_name(f".{lock.name}.lock")):
        entries = {**pins(lock), name: pin}
        content = {"archives": {key: asdict(entries[key]) for key in sorted(entries)}}
        with replacing(lock) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class _Again(Exception):  # noqa: N818
    """A request failed in a way that may pass; `after` is the pause that the server asks for."""

    def __init__(self, says: str, after: float | None = None) -> None:
        super().__init__(says)
        self.after = after


class _Reader:
    """A downloader for pooch that continues a `.part` file and tries again.

    A part is continued only if the server can tell that it is still of the same file
    (If-Range with its ETag or date), or if a checksum is known.
    """

    def __init__(
        self, target: Path, known: Pin | None, tell: Tell, progress: bool, kind: Kind
    ) -> None:
        self.part = target.with_name(f"{target.name}.part")
        self.facts = target.with_name(f"{target.name}.part.json")
        self.known, self.tell, self.progress = known, tell, progress
        self.kind = kind
        self.resumed = False

    def __call__(self, url: str, output_file: str, _: Any = None) -> None:
        """Download `url` to `output_file`; called by pooch."""
        import requests

        failures, most = 0, self._arrived()
        while True:
            try:
                self._continue(url)
                break
            except (_Again, requests.RequestException) as error:
                failures = 1 if self._arrived() > most else failures + 1
                most = max(most, self._arrived())
                if failures >= ATTEMPTS:
                    raise InputError(
                        f"{url} could not be fetched in {ATTEMPTS} attempts ({_short(error)}). "
                        f"{self._arrived():,} bytes are kept; run this again to go on, or name a "
                        f"mirror in {self.kind.variable}."
                    ) from None
                after = getattr(error, "after", None)
                pause = min(2.0 ** (failures - 1), LONGEST_PAUSE) if after is None else after
                self.tell(f"{self.part.name[:-5]}: {_short(error)}; again in {pause:.0f} s.")
                _pause(pause)
        # a second name, so that a stop while the checksum is computed costs nothing
        Path(output_file).unlink(missing_ok=True)
        try:
            os.link(self.part, output_file)
        except OSError:  # not every file system has links
            self.part.replace(output_file)

    def forget(self) -> None:
        """Remove what has arrived."""
        self.part.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)
        self.resumed = False

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _resumable(self, url: str) -> tuple[int, str | None] | None:
        """Return (whole size, validator) of the file that the part is of; None: start anew."""
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
            if facts["url"] == url and facts["validator"] is not None:
                return int(facts["size"]), str(facts["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return (self.known.size, None) if self.known else None

    def _continue(self, url: str) -> None:
        """Make one request and append what it brings; return when the part is whole."""
        import requests

        of, begin = self._resumable(url), self._arrived()
        if of is not None and begin == of[0] and begin:
            self.resumed = True
            return
        if of is None or begin > of[0]:
            begin = 0
        headers = {"Accept-Encoding": "identity"}
        if begin and of:
            headers["Range"] = f"bytes={begin}-"
            if of[1] is not None:
                headers["If-Range"] = of[1]
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            self._check_status(response, url)
            if begin and of and response.status_code == 206:
                size = of[0]
                if response.headers.get("Content-Range") != f"bytes {begin}-{size - 1}/{size}":
                    self.forget()
                    raise _Again("the server answered with another part of the file")
                self.resumed = True
            else:
                begin, size = 0, self._whole_size(response, url)
                self.forget()
            self._check_room(size - begin)
            if not begin:
                self.part.touch()
                facts = {"url": url, "size": size, "validator": _validator(response)}
                with replacing(self.facts) as temporary:
                    temporary.write_text(json.dumps(facts), encoding="utf-8")
            self._append(response, begin, size)
        if self._arrived() != size:
            raise _Again(f"the server closed after {self._arrived():,} of {size:,} bytes")

    def _append(self, response: requests.Response, begin: int, size: int) -> None:
        from tqdm.auto import tqdm

        with (
            open(self.part, "ab") as stream,
            tqdm(
                total=size,
                initial=begin,
                unit="B",
                unit_scale=True,
                desc=self.part.name[:-5],
                disable=None if self.progress else True,
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                if stream.tell() + len(chunk) > size:
                    raise InputError(
                        f"{response.url} has more than the {size:,} bytes it was to have."
                    )
                try:
                    stream.write(chunk)
                    stream.flush()
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        self._check_room(size - self._arrived(), full=True)
                    raise
                bar.update(len(chunk))
            os.fsync(stream.fileno())

    def _check_room(self, needed: int, full: bool = False) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if full or free < needed:
            raise InputError(
                f"The disk is full: {self.part.parent} needs {needed:,} more bytes and has "
                f"{free:,}. Make room and run this again; what has arrived is kept."
            )

    def _whole_size(self, response: requests.Response, url: str) -> int:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise InputError(f"{url} comes packed a second time, so its size cannot be checked.")
        length = response.headers.get("Content-Length")
        if length is None and self.known is None:
            raise InputError(
                f"{url}: the server does not say how long the file is and no checksum is known, "
                "so half of it could not be told from all of it. Use another mirror."
            )
        size = self.known.size if length is None and self.known else int(length or 0)
        if self.known is not None and size != self.known.size:
            raise InputError(
                f"{url} has {size:,} bytes; the lock file says {self.known.size:,} bytes, sha256 "
                f"{self.known.sha256}. If the publisher has changed the file and you trust the "
                "new one, remove its entry from the lock file; else try another mirror "
                f"({self.kind.variable})."
            )
        return size

    def _check_status(self, response: requests.Response, url: str) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status == 416:
            self.forget()
            raise _Again("the server has no more of the file than has arrived")
        if status in _PASSING:
            after = _retry_after(response.headers.get("Retry-After"))
            if after is not None and after > LONGEST_WAIT:
                raise InputError(
                    f"{url} is busy (status {status}) and asks to be left alone for "
                    f"{after:,.0f} s. Run this again then; what has arrived is kept."
                )
            raise _Again(f"the server answered with status {status}", after)
        raise InputError(
            f"{url} is not to be had: status {status} {response.reason}. Name a mirror in "
            f"{self.kind.variable}. {self.kind.at_hand}"
        )


def _short(error: Exception) -> str:
    """Return the cause at the end of a message of requests, which quotes every layer's."""
    return str(error).rsplit("(Caused by ", 1)[-1].rstrip(")")[-200:]


def _validator(response: requests.Response) -> str | None:
    """Return what If-Range can compare: a strong ETag, or the date."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    return response.headers.get("Last-Modified")


def _retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header (seconds, or a date) asks for."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
