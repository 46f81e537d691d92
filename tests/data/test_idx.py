"""IDX files on this machine, in the cache, and from servers that fail in each way."""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlib.data import idx

ARRAY = np.random.default_rng(0).integers(0, 256, (50, 4, 3), dtype=np.uint8)
CONTENT = struct.pack(">4B3I", 0, 0, 8, 3, *ARRAY.shape) + ARRAY.tobytes()
OTHER = struct.pack(">4B3I", 0, 0, 8, 3, *ARRAY.shape) + ARRAY[::-1].tobytes()
ARCHIVE = gzip.compress(CONTENT, mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "images-idx3-ubyte"
NAMES = [f"{NAME}.gz", NAME, "images.idx3-ubyte.gz", "images.idx3-ubyte"]  # As other programs save them, too.
BAD_FILES = {
    "empty": b"",
    "truncated": ARCHIVE[:-100],
    "shorter": CONTENT[:-100],
    "flipped": ARCHIVE[:300] + bytes([ARCHIVE[300] ^ 1]) + ARCHIVE[301:],
    "scrambled": ARCHIVE[:10] + b"\x07" + ARCHIVE[11:],  # Deflate knows no block of this type.
    "longer": ARCHIVE + b"more",
    "foreign": gzip.compress(OTHER, mtime=0),
    "foreign_content": OTHER,
    "page": b"<html>Please sign in to this network</html>",
    "garbage": b"\x1f\x8b" + bytes(range(256)),
}
load = functools.partial(idx.load, NAME, SHA256, folder="shapes", timeout=1.0)


class Handler(BaseHTTPRequestHandler):
    """Answers as the first part of the path says; the server keeps the paths it was asked for."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        behavior = self.path.split("/")[1]
        body = BAD_FILES.get(behavior, ARCHIVE)
        if behavior == "dead":
            return
        if behavior == "silent":
            self.server.released.wait(20)
            return
        self.send_response({"missing": 404, "broken": 500}.get(behavior, 200))
        if behavior != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        whole = behavior not in ("cut", "endless", "stalling")
        self.wfile.write(body if whole else body[:200])
        if behavior == "stalling":
            self.wfile.flush()
            self.server.released.wait(20)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


FAULTS = {
    "dead": "closed connection",
    "silent": "timed out",
    "stalling": "timed out",
    "missing": "404",
    "broken": "500",
    "cut": f"200 bytes read, {len(ARCHIVE) - 200} more expected",
    "endless": "a broken gzip file of 200 bytes",
    **dict.fromkeys(BAD_FILES, rf"a .* bytes.*; it must be a file with the content of SHA-256 {SHA256}"),
}


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.released = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the archive belongs, in a cache of the test's own."""
    monkeypatch.delenv("DMLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "dmlib" / "shapes" / f"{NAME}.gz"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder of data."""
    monkeypatch.setenv("DMLIB_DATA", str(tmp_path / "own"))
    (tmp_path / "own" / "shapes").mkdir(parents=True)
    return tmp_path / "own"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(found: torch.Tensor) -> None:
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found, ARRAY)


# The user's own files


@pytest.mark.parametrize("place", [f"{folder}{file}" for folder in ("shapes/", "") for file in NAMES])
@pytest.mark.parametrize("data", [CONTENT, ARCHIVE], ids=["plain", "gzipped"])
def test_own_files_are_read_where_they_are(own: Path, tmp_path: Path, place: str, data: bytes) -> None:
    (own / place).write_bytes(data)
    check(load(mirrors=()))
    assert files(tmp_path) == {f"own/{place}": data}


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 1, 3, 2)])
def test_any_number_of_axes(own: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    content = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + array.tobytes()
    (own / NAME).write_bytes(content)
    found = idx.load(NAME, hashlib.sha256(content).hexdigest(), folder="shapes", mirrors=())
    np.testing.assert_array_equal(found, array)
    found += 1  # The array is the caller's own.


def test_own_files_go_before_the_cache_and_the_mirrors(own: Path, cache: Path, server) -> None:
    (own / "shapes" / NAME).write_bytes(CONTENT)
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"not looked at")
    check(load(mirrors=[f"{server.url}/good/"]))
    assert server.asked == []
    assert cache.read_bytes() == b"not looked at"


@pytest.mark.parametrize("place", [f"shapes/{NAME}.gz", NAME])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_own_files_of_another_content_raise_and_stay(own: Path, tmp_path: Path, server, kind: str, place: str) -> None:
    (own / place).write_bytes(BAD_FILES[kind])
    with pytest.raises(ValueError, match=rf"{own / place} was a .*bytes.*; it must be a file .* SHA-256 {SHA256}"):
        load(mirrors=[f"{server.url}/good/"])
    assert files(tmp_path) == {f"own/{place}": BAD_FILES[kind]}
    assert server.asked == []


def test_the_message_says_what_the_file_was(own: Path) -> None:
    (own / NAME).write_bytes(OTHER)
    with pytest.raises(
        ValueError, match=f"a file with 616 bytes of content of SHA-256 {hashlib.sha256(OTHER).hexdigest()}"
    ):
        load(mirrors=())
    (own / NAME).write_bytes(ARCHIVE[:-100])
    with pytest.raises(ValueError, match=f"was a broken gzip file of {len(ARCHIVE) - 100} bytes"):
        load(mirrors=())


def test_a_folder_that_is_none_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server) -> None:
    monkeypatch.setenv("DMLIB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"DMLIB_DATA was .*nowhere; it must be a folder"):
        load(mirrors=[f"{server.url}/good/"])
    assert server.asked == []


def test_own_folder_without_the_file_is_left_alone(own: Path, cache: Path, tmp_path: Path, server) -> None:
    (own / "shapes" / "labels").write_bytes(b"something else")
    check(load(mirrors=[f"{server.url}/good/"]))
    assert files(own) == {"shapes/labels": b"something else"}
    assert cache.read_bytes() == ARCHIVE


# The cache


def test_a_download_is_kept_and_read_again(cache: Path, tmp_path: Path, server) -> None:
    for _ in range(3):
        check(load(mirrors=[f"{server.url}/good/"]))
    assert server.asked == [f"/good/{NAME}.gz"]
    assert files(tmp_path) == {str(cache.relative_to(tmp_path)): ARCHIVE}


@pytest.mark.parametrize("file", NAMES)
@pytest.mark.parametrize("data", [CONTENT, ARCHIVE], ids=["plain", "gzipped"])
def test_the_cache_may_hold_it_under_every_name(cache: Path, tmp_path: Path, file: str, data: bytes) -> None:
    cache.parent.mkdir(parents=True)
    (cache.parent / file).write_bytes(data)
    check(load(mirrors=()))
    assert list(files(tmp_path).values()) == [data]


def test_without_a_home_the_users_own_files_are_enough(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*args: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(
        RuntimeError, match=r"^the home folder was not .*; DMLIB_DATA must name .*XDG_CACHE_HOME.*downloads$"
    ):
        load(mirrors=())
    (own / NAME).write_bytes(CONTENT)
    check(load(mirrors=()))


@pytest.mark.parametrize("home", ["", None])
def test_the_cache_is_in_the_home_folder(home: str | None, tmp_path: Path, monkeypatch, server) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME") if home is None else monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("DMLIB_DATA", "")
    check(load(mirrors=[f"{server.url}/good/"]))
    assert list(files(tmp_path)) == [f".cache/dmlib/shapes/{NAME}.gz"]


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_in_the_cache_is_fetched_again(cache: Path, tmp_path: Path, server, kind: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(BAD_FILES[kind])
    check(load(mirrors=[f"{server.url}/good/"]))
    assert files(tmp_path) == {str(cache.relative_to(tmp_path)): ARCHIVE}


def test_a_bad_file_in_the_cache_is_not_kept(cache: Path, tmp_path: Path, server) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(BAD_FILES["truncated"])
    with pytest.raises(RuntimeError, match="could not be downloaded"):
        load(mirrors=[f"{server.url}/missing/"])
    assert files(tmp_path) == {}


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server) -> None:
    write = Path.write_bytes

    def write_half(path: Path, data: bytes) -> None:
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left on device"):
        load(mirrors=[f"{server.url}/good/"])
    assert files(tmp_path) == {}


def test_the_file_appears_whole(cache: Path, monkeypatch: pytest.MonkeyPatch, server) -> None:
    replaced, replace = [], os.replace

    def look_and_replace(source: Path, target: Path) -> None:
        replaced.append((source.read_bytes(), source.parent, target, target.exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_and_replace)
    check(load(mirrors=[f"{server.url}/good/"]))
    assert replaced == [(ARCHIVE, cache.parent, cache, False)]


# The mirrors


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
def test_a_mirror_that_fails_is_named_and_nothing_is_kept(tmp_path: Path, server, fault: str, reason: str) -> None:
    url = f"{server.url}/{fault}/{NAME}.gz"
    with pytest.raises(RuntimeError, match=rf"{NAME} could not .*DMLIB_DATA.*\n{url}: .*{reason}"):
        load(mirrors=[f"{server.url}/{fault}/"], timeout=0.2)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_second_mirror_helps_out(cache: Path, server, fault: str) -> None:
    start = time.monotonic()
    check(load(mirrors=[f"{server.url}/{fault}/", f"{server.url}/good/"]))
    assert time.monotonic() - start < 10  # The server itself would keep silent for 20 seconds.
    assert server.asked == [f"/{fault}/{NAME}.gz", f"/good/{NAME}.gz"]
    assert cache.read_bytes() == ARCHIVE


def test_nobody_at_home(server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nobody = [f"http://127.0.0.1:{port}/", "nonsense/"]
    with pytest.raises(RuntimeError, match=rf"(?s){port}/{NAME}.gz: .*refused.*nonsense/{NAME}.gz: .*unknown"):
        load(mirrors=nobody)
    check(load(mirrors=[*nobody, f"{server.url}/good/"]))
