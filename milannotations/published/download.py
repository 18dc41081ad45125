"""Download of the published archives and models: whole and verified, or not at all.

    FOLDER/
      alexnet-imagenet.zip            whole and verified
      alexnet-imagenet.zip.part       bytes of an unfinished download; see `resumable_download`
      milannotations.lock.json        sizes and checksums; see `lock_file`

The models of 2022 are zip files too, so both are verified in the same way.
"""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from milannotations.catalog import NETWORKS, canonical
from milannotations.errors import InputError, did_you_mean
from milannotations.published.lock_file import LOCK, Pin, pins, record_pin
from milannotations.published.resumable_download import ResumableDownload
from milannotations.utils.files import check_is_file, sha256
from milannotations.utils.http import is_http_url

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PublishedFiles:
    """Files that the authors published in one folder of their server.

    Attributes:
        noun: what one of them is called in messages.
        files: file names by published name.
        url: address of the folder.
        mirror_variable: environment variable with the address of a mirror of the folder.
        local_advice: how to use a file that is already on this machine, for messages.
    """

    noun: str
    files: dict[str, str]
    url: str
    mirror_variable: str
    local_advice: str


ARCHIVES = PublishedFiles(
    "archive",
    {name: network.archive for name, network in NETWORKS.items()},
    "http://milan.csail.mit.edu/data",
    "MILANNOTATIONS_URL",
    "If the archive is on this machine, give it with --zip.",
)
"""Archives of exemplars and annotations, one per network."""

_MODELS = ("base", "cls", "gen", "imagenet", "places365", "alexnet", "resnet152", "biggan")
MODELS = PublishedFiles(
    "model",
    {name: f"milan-{name}.pth" for name in _MODELS},
    "http://milan.csail.mit.edu/models",
    "MILAN_MODELS_URL",
    "If the model is on this machine, convert it with: milan convert FILE OUT.",
)
"""Checkpoints of the 2022 models."""


def address(name: str, base: str | None = None, published: PublishedFiles = ARCHIVES) -> str:
    """Return the address of a published archive or model.

    Args:
        name: published name; slashes are allowed.
        base: address of the folder that holds the files; None takes the environment variable
            `MILANNOTATIONS_URL` (`MILAN_MODELS_URL` for models), else the authors' server.
        published: `ARCHIVES` or `MODELS`.

    Raises:
        InputError: no such name; `base` is not an http or https address.

    Example:
        >>> address("alexnet/places365", "https://mirror.example/milan/")
        'https://mirror.example/milan/alexnet-places365.zip'
        >>> address("base", published=MODELS)
        'http://milan.csail.mit.edu/models/milan-base.pth'
    """
    name = canonical(name)
    if name not in published.files:
        raise InputError(
            f"No published {published.noun} of '{name}' (published: {', '.join(published.files)})."
            + did_you_mean(name, published.files, 0.6)
        )
    base = base or os.environ.get(published.mirror_variable) or published.url
    if not is_http_url(base) or urlsplit(base).query or urlsplit(base).fragment:
        raise InputError(
            f"{base!r} is not the http or https address of a folder, such as {published.url}. "
            f"{published.local_advice}"
        )
    if urlsplit(base).username is not None:
        raise InputError(
            f"The address on {urlsplit(base).hostname} holds a user name, which would end up in "
            "the lock file. Put it into ~/.netrc."
        )
    return f"{base.rstrip('/')}/{published.files[name]}"


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
    published: PublishedFiles = ARCHIVES,
) -> Path:
    """Return the path of a published file in `folder`, downloaded if it is not there.

    An unfinished download is kept and continued where the server allows. The file gets its name
    once its size and its checksum are right. A file that is already there, put by hand perhaps, is
    verified without any request.

    Args:
        name: published name; slashes are allowed.
        folder: created if absent.
        base: see `address`.
        lock: the lock file; None takes the one in `folder`. A file that it does not name is added;
            entries are never changed.
        require_checksum: refuse a file that the lock file does not name.
        wait: seconds to wait while another process fetches the same file; None waits for as long
            as it takes, 0 not at all.
        tell: called with a line for the user when there is something to know.
        progress: show a progress bar on a terminal.
        published: `ARCHIVES` or `MODELS`.

    Raises:
        InputError: no such name; the file is not available; it differs from the lock file; its
            checksum is unknown and required; the disk is full; `wait` is over.
    """
    tell = tell or _silent
    url = address(name, base, published)
    target = Path(folder) / url.rsplit("/", 1)[1]
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(LOCK) if lock is None else Path(lock)
    with _exclusive(target, wait, tell):
        pin = pins(lock).get(target.name)
        if pin is None and require_checksum:
            raise InputError(
                f"No checksum of {target.name} is known: {lock} does not name it. Give a lock "
                "file that does, or leave out --require-checksum to record it on first use."
            )
        if target.exists():
            _verify(check_is_file(target), pin, lock, published)
        else:
            _announce(url, pin, tell)
            _download(url, target, pin, lock, tell, progress, published)
        if pin is None:
            pin = pins(lock)[target.name]
            tell(f"{target.name}: {pin.size:,} bytes, sha256 {pin.sha256}, recorded in {lock}")
    return target


def _silent(_: str) -> None:
    pass


@contextmanager
def _exclusive(target: Path, wait: float | None, tell: Tell) -> Iterator[None]:
    """Hold the lock of a download, which the system releases if the process dies."""
    import filelock

    guard = filelock.FileLock(target.with_name(f".{target.name}.lock"))
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


def _announce(url: str, pin: Pin | None, tell: Tell) -> None:
    check = "its checksum is known" if pin else "no checksum is known: what comes is recorded"
    if url.startswith("http:"):
        tell(f"{url}: plain http, which anyone on the way can read and change; {check}.")
    else:
        tell(f"{url}: {check}.")


def _download(
    url: str,
    target: Path,
    pin: Pin | None,
    lock: Path,
    tell: Tell,
    progress: bool,
    published: PublishedFiles,
) -> None:
    """Download to `target` through pooch, which compares the checksum before the file is moved."""
    import pooch

    downloader = ResumableDownload(
        target,
        pin,
        tell=tell,
        progress=progress,
        mirror_variable=published.mirror_variable,
        advice=published.local_advice,
    )
    scratch = target.with_name(f".{target.name}.fetched")
    shutil.rmtree(scratch, ignore_errors=True)
    restarted = False
    while True:
        try:
            with _quiet(pooch.get_logger()):
                fetched = Path(
                    pooch.retrieve(
                        url,
                        known_hash=f"sha256:{pin.sha256}" if pin else None,
                        fname=target.name,
                        path=scratch,
                        downloader=downloader,
                    )
                )
            break
        except InputError:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        except ValueError as error:
            # pooch: the checksum differs. A continued part may be of another file, so the whole
            # is fetched once more; a file that came in one piece is wrong.
            restarted = downloader.resumed and not restarted
            downloader.discard()
            if not restarted:
                shutil.rmtree(scratch, ignore_errors=True)
                raise InputError(
                    f"{url}: {error} {_advice(target.name, lock, published)}"
                ) from None
            tell(f"{target.name}: the parts do not fit together; starting anew.")
    try:
        _verify(fetched, pin, lock, published, url)
    except InputError:
        downloader.discard()
        shutil.rmtree(scratch)
        raise
    fetched.replace(target)
    downloader.discard()
    shutil.rmtree(scratch)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Show only warnings of a logger."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _advice(name: str, lock: Path, published: PublishedFiles) -> str:
    return (
        f"If the publisher has changed the file and you trust the new one, remove the entry "
        f"'{name}' from {lock} and run this again; else try another mirror "
        f"({published.mirror_variable})."
    )


def _verify(
    path: Path, pin: Pin | None, lock: Path, published: PublishedFiles, url: str | None = None
) -> None:
    """Compare a whole file with its pin, or record a pin of it.

    Args:
        path: the file.
        pin: its expected size and checksum, if known.
        lock: the lock file.
        published: for messages.
        url: where it was downloaded from; None if it was there already.

    Raises:
        InputError: it is no zip file, or has another size or checksum than the lock file says.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as stream:
            head = stream.read(20)
        advice = f"Is {path.name} at that address?" if url else "Remove it."
        raise InputError(
            f"{url or path} is not a whole zip file ({path.stat().st_size:,} bytes, beginning "
            f"with {head!r}). {advice}"
        )
    size = path.stat().st_size
    if url is not None and pin is not None:
        return  # pooch has compared the checksums
    # a file of another size has another checksum, which need not be computed
    digest = "" if pin and pin.size != size else sha256(path)
    if pin is None:
        record_pin(lock, path.name, Pin(url, size, digest))
    elif digest != pin.sha256:
        actual = digest or "not computed"
        raise InputError(
            f"{path} has {size:,} bytes, sha256 {actual}; {lock} says {pin.size:,} bytes, sha256 "
            f"{pin.sha256}. Remove the file to fetch it again. "
            + _advice(path.name, lock, published)
        )
