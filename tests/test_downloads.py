"""Archives over http, from a server on this machine that misbehaves as told."""

import errno
import http.server
import io
import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
import zipfile
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from milannotations import InputError
from milannotations.published import resumable_download
from milannotations.published.download import address, fetch
from milannotations.published.lock_file import LOCK, Pin, pins, record_pin
from milannotations.published.resumable_download import ATTEMPTS, CHUNK
from milannotations.utils import http as http_requests
from milannotations.utils.files import sha256

NAME = "alexnet-imagenet.zip"


def a_zip(seed=0, size=300_000):
    import random

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("conv1/masks.npy", random.Random(seed).randbytes(size))
    return stream.getvalue()


class Server:
    """Serves one file; `script` says what the next requests do, then all is well.

    A step is a status, `("status", seconds or date)`, or `("close", n)`: close after n bytes.
    """

    def __init__(self, content, ranges=True, length=True, tag='"one"', pace=0.0):
        self.content, self.ranges, self.length, self.tag = content, ranges, length, tag
        self.pace, self.script, self.asked = pace, [], []
        self.claimed = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.answer(self)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}/data"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        step = self.script.pop(0) if self.script else None
        self.asked.append(request.headers.get("Range"))
        if request.path != f"/data/{NAME}":
            step = 404
        if isinstance(step, int) or (isinstance(step, tuple) and step[0] != "close"):
            status, after = step if isinstance(step, tuple) else (step, None)
            request.send_response(status)
            if after is not None:
                request.send_header("Retry-After", str(after))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        begin, total = 0, self.claimed or len(self.content)
        wanted = request.headers.get("Range")
        unchanged = request.headers.get("If-Range") in (None, self.tag)
        if self.ranges and wanted and unchanged:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(self.content):
                request.send_response(416)
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        else:
            request.send_response(200)
        if self.length:
            request.send_header("Content-Length", str(total - begin))
        if self.tag:
            request.send_header("ETag", self.tag)
        request.end_headers()
        body = self.content[begin:]
        if isinstance(step, tuple):
            body = body[: step[1]]
        try:
            for at in range(0, len(body), 1 << 14):
                request.wfile.write(body[at : at + (1 << 14)])
                time.sleep(self.pace)
        except OSError:
            pass


@pytest.fixture
def server():
    made = []

    def serve(content=None, **options):
        made.append(Server(a_zip() if content is None else content, **options))
        return made[-1]

    yield serve
    for one in made:
        one.http.shutdown()
        one.http.server_close()


@pytest.fixture
def pauses(monkeypatch):
    """Collect the pauses between attempts, and take none."""
    taken = []
    monkeypatch.setattr(http_requests, "_pause", taken.append)
    return taken


def get(server, folder, said=None, **options):
    tell = (lambda line: said.append(line)) if said is not None else None
    return fetch("alexnet/imagenet", folder, base=server.base, tell=tell, progress=False, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# --- addresses


def test_addresses_are_the_published_ones(monkeypatch):
    assert address("resnet152/places365") == (
        "http://milan.csail.mit.edu/data/resnet152-places365.zip"
    )
    monkeypatch.setenv("MILANNOTATIONS_URL", "https://mirror.example/m/")
    assert address("dino_vits8-imagenet") == "https://mirror.example/m/dino_vits8-imagenet.zip"
    assert address("alexnet-imagenet", "http://b.example") == f"http://b.example/{NAME}"


@pytest.mark.parametrize(
    "base",
    ["ftp://a.example/x", "/data/zips", "http://", "http://a:b/", "https://a.example/?x=1"],
)
def test_a_base_that_is_no_address_is_refused(base):
    with pytest.raises(InputError, match="http or https address of a folder"):
        address("alexnet-imagenet", base)


def test_names_and_passwords_stay_out_of_addresses():
    with pytest.raises(InputError, match="netrc") as caught:
        address("alexnet-imagenet", "https://me:secret@a.example/")
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="Did you mean 'alexnet-imagenet'"):
        address("alexnet-imagnet")


# --- all well


def test_whole_and_recorded(tmp_path, server):
    one, said = server(), []
    path = get(one, tmp_path, said)
    assert path.read_bytes() == one.content
    assert names(tmp_path) == [NAME, LOCK]
    assert pins(tmp_path / LOCK) == {
        NAME: Pin(f"{one.base}/{NAME}", len(one.content), sha256(path))
    }
    assert "plain http" in said[0]
    assert "recorded" in said[-1]


def test_what_is_there_is_verified_and_asks_nothing(tmp_path, server):
    one = server()
    get(one, tmp_path)
    assert get(one, tmp_path, require_checksum=True) == tmp_path / NAME
    assert len(one.asked) == 1


def test_an_archive_put_there_by_hand_is_recorded(tmp_path, server):
    one = server()
    (tmp_path / NAME).write_bytes(one.content)
    get(one, tmp_path)
    assert one.asked == []
    assert pins(tmp_path / LOCK)[NAME].url is None


def test_half_an_archive_put_there_by_hand_is_not_taken_for_whole(tmp_path, server):
    one = server()
    (tmp_path / NAME).write_bytes(one.content[: len(one.content) // 2])
    with pytest.raises(InputError, match=r"not a whole zip file.*Remove it"):
        get(one, tmp_path)
    assert not (tmp_path / LOCK).exists()


# --- broken connections


def test_resumed_where_the_server_closed(tmp_path, server, pauses):
    one = server()
    one.script = [("close", 2 * CHUNK)]
    assert get(one, tmp_path).read_bytes() == one.content
    assert one.asked == [None, f"bytes={2 * CHUNK}-"]
    assert names(tmp_path) == [NAME, LOCK]


def test_started_anew_where_the_server_knows_no_ranges(tmp_path, server, pauses):
    one = server(ranges=False)
    one.script = [("close", 3 * CHUNK), ("close", CHUNK)]
    assert get(one, tmp_path).read_bytes() == one.content
    assert one.asked == [None, f"bytes={3 * CHUNK}-", f"bytes={CHUNK}-"]


def test_resumed_by_a_later_call(tmp_path, server, pauses):
    one = server()
    one.script = [("close", 2 * CHUNK)] + [503] * ATTEMPTS
    with pytest.raises(InputError, match=r"131,072 bytes are kept; run this again"):
        get(one, tmp_path)
    assert f"{NAME}.part" in names(tmp_path)
    assert NAME not in names(tmp_path)
    one.asked.clear()
    one.script.clear()
    assert get(one, tmp_path).read_bytes() == one.content
    assert one.asked == [f"bytes={2 * CHUNK}-"]


def test_a_part_of_a_file_that_changed_is_not_continued(tmp_path, server, pauses):
    one = server()
    one.script = [("close", 2 * CHUNK)] + [503] * ATTEMPTS
    with pytest.raises(InputError):
        get(one, tmp_path)
    one.content, one.tag = a_zip(seed=1), '"two"'
    assert get(one, tmp_path).read_bytes() == one.content


def test_without_etag_and_checksum_nothing_is_continued(tmp_path, server, pauses):
    one = server(tag=None)
    one.script = [("close", 2 * CHUNK)]
    assert get(one, tmp_path).read_bytes() == one.content
    assert one.asked == [None, None]


def test_parts_that_do_not_fit_are_fetched_anew_once(tmp_path, server, pauses):
    """No ETag, a known checksum, and a part of something else."""
    one, said = server(tag=None), []
    whole = get(one, tmp_path)
    whole.unlink()
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 100_000)
    assert get(one, tmp_path, said).read_bytes() == one.content
    assert one.asked == [None, "bytes=100000-", None]
    assert any("starting anew" in line for line in said)


def test_a_part_that_is_whole_asks_for_nothing_more(tmp_path, server):
    one = server()
    get(one, tmp_path).rename(tmp_path / f"{NAME}.part")
    assert get(one, tmp_path).read_bytes() == one.content
    assert len(one.asked) == 1


def test_500_then_ok_with_growing_pauses(tmp_path, server, pauses):
    one = server()
    one.script = [500, 502, 503]
    get(one, tmp_path)
    assert pauses == [1, 2, 4]


def test_given_up_after_so_many_attempts(tmp_path, server, pauses):
    one = server()
    one.script = [500] * 50
    with pytest.raises(InputError, match=r"8 attempts.*status 500"):
        get(one, tmp_path)
    assert pauses == [1, 2, 4, 8, 16, 32, 60]
    assert names(tmp_path) == []


def test_retry_after_is_honoured(tmp_path, server, pauses):
    one = server()
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    one.script = [(429, 17), (503, soon)]
    get(one, tmp_path)
    assert pauses[0] == 17
    assert 90 < pauses[1] <= 100


def test_a_server_that_wants_hours_is_left_alone(tmp_path, server, pauses):
    one = server()
    one.script = [(503, 7200)]
    with pytest.raises(InputError, match="left alone for 7,200 s"):
        get(one, tmp_path)
    assert pauses == []


def test_no_server_at_all(tmp_path, pauses):
    with pytest.raises(InputError, match=r"8 attempts.*refused"):
        fetch("alexnet-imagenet", tmp_path, base="http://127.0.0.1:9/", progress=False)


def test_404_is_final(tmp_path, server, pauses):
    one = server()
    with pytest.raises(InputError, match=r"status 404.*--zip"):
        fetch("biggan-imagenet", tmp_path, base=one.base)
    assert pauses == []
    assert names(tmp_path) == []


# --- wrong content


def test_a_size_that_the_server_never_delivers(tmp_path, server, pauses):
    one = server()
    one.claimed = len(one.content) + 10
    with pytest.raises(InputError, match="8 attempts"):
        get(one, tmp_path)
    assert NAME not in names(tmp_path)
    assert LOCK not in names(tmp_path)


def test_no_size_and_no_checksum_is_refused(tmp_path, server):
    one = server(length=False)
    with pytest.raises(InputError, match="does not say how long"):
        get(one, tmp_path)


def test_no_size_but_a_checksum(tmp_path, server, pauses):
    one = server()
    get(one, tmp_path).unlink()
    one.length = False
    one.script = [("close", 1000)]
    assert get(one, tmp_path).read_bytes() == one.content


def test_a_page_instead_of_an_archive(tmp_path, server):
    with pytest.raises(InputError, match=r"not a whole zip file.*<html>"):
        get(server(b"<html>please log in</html>"), tmp_path)
    assert names(tmp_path) == []


def test_another_file_of_the_same_size(tmp_path, server):
    one = server()
    get(one, tmp_path).unlink()
    before = (tmp_path / LOCK).read_text()
    first = pins(tmp_path / LOCK)[NAME]
    one.content = a_zip(seed=1)
    with pytest.raises(InputError, match="remove the entry") as caught:
        get(one, tmp_path)
    assert first.sha256 in str(caught.value)
    (tmp_path / "other").write_bytes(one.content)
    assert sha256(tmp_path / "other") in str(caught.value)
    assert (tmp_path / LOCK).read_text() == before
    assert names(tmp_path) == [LOCK, "other"]


def test_another_size_is_seen_before_anything_is_fetched(tmp_path, server):
    one = server()
    get(one, tmp_path).unlink()
    was, one.content = len(one.content), a_zip(size=400_000)
    with pytest.raises(InputError, match=f"{len(one.content):,} bytes; the lock.*{was:,} bytes"):
        get(one, tmp_path)
    assert names(tmp_path) == [LOCK]


def test_an_archive_that_changed_on_disk(tmp_path, server):
    one = server()
    path = get(one, tmp_path)
    path.write_bytes(a_zip(seed=1))
    with pytest.raises(InputError, match="Remove the file to fetch it again") as caught:
        get(one, tmp_path)
    assert sha256(path) in str(caught.value)
    assert pins(tmp_path / LOCK)[NAME].sha256 in str(caught.value)


# --- the lock file


def test_refused_without_a_checksum(tmp_path, server):
    one = server()
    with pytest.raises(InputError, match=r"No checksum of alexnet-imagenet\.zip is known"):
        get(one, tmp_path, require_checksum=True)
    assert one.asked == []


def test_a_pinned_lock_file_elsewhere(tmp_path, server):
    one = server()
    get(one, tmp_path / "first")
    pinned = tmp_path / "pinned.json"
    (tmp_path / "first" / LOCK).rename(pinned)
    before = pinned.read_bytes()
    got = get(one, tmp_path / "second", lock=pinned, require_checksum=True)
    assert got.read_bytes() == one.content
    assert pinned.read_bytes() == before
    assert names(tmp_path / "second") == [NAME]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"archives": {"a.zip": {}}}',
        '{"archives": {"a.zip": {"url": null, "size": 1, "sha256": "abc"}}}',
        '{"archives": {"a.zip": {"url": null, "size": "1", "sha256": "' + "0" * 64 + '"}}}',
    ],
)
def test_a_damaged_lock_file(write_file, text):
    with pytest.raises(InputError, match=r"lock\.json"):
        pins(write_file("lock.json", text))


# --- a full disk, a kill, two processes


def test_a_disk_without_room_is_seen_first(tmp_path, server, monkeypatch):
    one = server()
    monkeypatch.setattr(
        resumable_download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})
    )
    with pytest.raises(InputError, match=r"disk is full: .* and has 1,000"):
        get(one, tmp_path)
    assert names(tmp_path) == []


def test_a_disk_that_fills_up(tmp_path, server, monkeypatch):
    one = server()

    class Full(io.FileIO):
        def write(self, chunk):
            if self.tell() >= 2 * CHUNK:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(chunk)

    opened = {"ab": lambda path: Full(path, "ab")}
    with monkeypatch.context() as patch:
        patch.setattr(
            resumable_download, "open", lambda path, mode: opened[mode](path), raising=False
        )
        with pytest.raises(InputError, match="disk is full"):
            get(one, tmp_path)
    assert get(one, tmp_path).read_bytes() == one.content
    assert one.asked == [None, f"bytes={2 * CHUNK}-"]


def test_stopped_while_the_checksum_is_computed(tmp_path, server, monkeypatch):
    import pooch.core

    one = server()
    get(one, tmp_path).unlink()

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pooch.core, "hash_matches", stop)
        with pytest.raises(KeyboardInterrupt):
            get(one, tmp_path)
    assert NAME not in names(tmp_path)
    assert get(one, tmp_path).read_bytes() == one.content
    assert len(one.asked) == 2
    assert names(tmp_path) == [NAME, LOCK]


def test_a_file_system_without_links(tmp_path, server, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(resumable_download.os, "link", refuse)
    one = server()
    assert get(one, tmp_path).read_bytes() == one.content
    assert names(tmp_path) == [NAME, LOCK]


CHILD = """
import sys
from milannotations.published.download import fetch
fetch("alexnet-imagenet", sys.argv[1], base=sys.argv[2], progress=False, tell=print)
"""


def child(folder, server):
    return subprocess.Popen(
        [sys.executable, "-u", "-c", CHILD, str(folder), server.base],
        stdout=subprocess.PIPE,
        text=True,
    )


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_half_way_and_continued(tmp_path, server):
    one = server(pace=0.02)
    process = child(tmp_path, one)
    part = tmp_path / f"{NAME}.part"
    until(lambda: part.exists() and part.stat().st_size > 50_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert NAME not in names(tmp_path)
    arrived = part.stat().st_size
    one.pace = 0
    assert get(one, tmp_path).read_bytes() == one.content
    assert one.asked == [None, f"bytes={arrived}-"]


def test_a_second_process_waits_or_stops(tmp_path, server):
    one = server(pace=0.03)
    process = child(tmp_path, one)
    until((tmp_path / f"{NAME}.part").exists)
    with pytest.raises(InputError, match="Another process is fetching"):
        get(one, tmp_path, wait=0)
    said = []
    assert get(one, tmp_path, said).read_bytes() == one.content
    assert "waiting for it" in said[0]
    assert process.wait() == 0
    process.stdout.close()
    assert len(one.asked) == 1


def _write(lock, number):
    record_pin(Path(lock), f"{number}.zip", Pin(None, number, f"{number:064d}"))


def test_the_lock_file_loses_nothing_to_several_writers(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.starmap(_write, [(str(tmp_path / LOCK), number) for number in range(12)])
    assert len(pins(tmp_path / LOCK)) == 12
    assert json.loads((tmp_path / LOCK).read_text())["archives"]["7.zip"]["size"] == 7
