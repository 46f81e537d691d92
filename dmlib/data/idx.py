"""Data sets as IDX files: found on this machine or downloaded, and used only if their content is the known one."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import struct
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

from dmlib.checks import Tensor, UInt8, require


def load(name: str, sha256: str, *, folder: str, mirrors: Sequence[str], timeout: float = 20.0) -> UInt8[Tensor, "..."]:
    """The array of bytes in the IDX file `name`, whose uncompressed content has the hash `sha256`.

    It is looked for, gzipped or not, in `$DMLIB_DATA/folder`, in `$DMLIB_DATA` and in the user's cache. Else
    `name`.gz is downloaded into the cache from the first of `mirrors` (each ends in "/") that has it. A mirror that
    is silent for `timeout` seconds is left. Raises ValueError where a file of `$DMLIB_DATA` has another content,
    and leaves the file; RuntimeError where it is not here and no mirror has it.
    """
    cached = _cache() / folder / f"{name}.gz"
    content = _from_user(name, sha256, folder)
    if content is None:
        content = _from_cache(cached, sha256)
    if content is None:
        archive = _download(name, sha256, mirrors, timeout)
        _store(archive, cached)
        content = _content(archive, name, sha256)
    return _parse(content)


def _from_user(name: str, sha256: str, folder: str) -> bytes | None:
    """The content of the file in the user's own folder, or None where there is none."""
    if not (root := os.environ.get("DMLIB_DATA")):
        return None
    require(os.path.isdir(root), "DMLIB_DATA", root, "a folder")
    places = [Path(root) / inner / file for inner in (folder, "") for file in (f"{name}.gz", name)]
    found = next((path for path in places if path.is_file()), None)
    return None if found is None else _content(found.read_bytes(), str(found), sha256)


def _from_cache(path: Path, sha256: str) -> bytes | None:
    """The content of a file that was downloaded before, or None; a file that is not the right one is removed."""
    if not path.is_file():
        return None
    try:
        return _content(path.read_bytes(), str(path), sha256)
    except ValueError:
        path.unlink(missing_ok=True)
        return None


def _download(name: str, sha256: str, mirrors: Sequence[str], timeout: float) -> bytes:
    """The archive `name`.gz, its content checked, from the first mirror that has it."""
    failures = []
    for mirror in mirrors:
        url = f"{mirror}{name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                archive = response.read()
            _content(archive, url, sha256)
            return archive
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{url}: {error}")
    tried = "\n".join(failures)
    raise RuntimeError(f"{name} could not be downloaded. DMLIB_DATA may name a folder that holds it. Tried:\n{tried}")


def _content(archive: bytes, name: str, sha256: str) -> bytes:
    """The uncompressed content of a file, gzipped or not; raises ValueError where its hash is another one."""
    must = f"a file with the content of SHA-256 {sha256}"
    try:
        content = gzip.decompress(archive) if archive.startswith(b"\x1f\x8b") else archive
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} was a broken gzip file of {len(archive)} bytes; it must be {must}") from error
    found = hashlib.sha256(content).hexdigest()
    require(found == sha256, name, f"a file with {len(content)} bytes of content of SHA-256 {found}", must)
    return content


def _store(archive: bytes, path: Path) -> None:
    """Write the file whole or not at all: under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(archive)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmlib"


def _parse(content: bytes) -> Tensor:
    """The bytes that follow the header: two zeros, the type 8, the number of axes, and big-endian lengths of these."""
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * axes).reshape(shape)
