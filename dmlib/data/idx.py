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

    It is looked for, gzipped or not, also with ".idx" in the place of "-idx", in `$DMLIB_DATA/folder`, in
    `$DMLIB_DATA` and in the user's cache. Else `name`.gz is downloaded into the cache from the first of `mirrors`
    (each ends in "/") that has it. A mirror that is silent for `timeout` seconds is left. Raises ValueError where a
    file of `$DMLIB_DATA` has another content, and leaves the file; RuntimeError where it is not here and no mirror
    has it, or where there is no place for a cache.
    """
    content = _from_user(name, sha256, folder)
    if content is None:
        cache = _cache() / folder
        content = _from_cache(cache, name, sha256)
    if content is None:
        archive = _download(name, sha256, mirrors, timeout)
        _store(archive, cache / f"{name}.gz")
        content = _content(archive, name, sha256)
    return _parse(content)


def _files(folder: Path, name: str) -> list[Path]:
    """The files in a folder that may be the one of this name."""
    places = [folder / f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in (".gz", "")]
    return [path for path in places if path.is_file()]


def _from_user(name: str, sha256: str, folder: str) -> bytes | None:
    """The content of the file in the user's own folder, or None where there is none."""
    if not (root := os.environ.get("DMLIB_DATA")):
        return None
    require(os.path.isdir(root), "DMLIB_DATA", root, "a folder")
    found = [*_files(Path(root) / folder, name), *_files(Path(root), name)]
    return _content(found[0].read_bytes(), str(found[0]), sha256) if found else None


def _from_cache(cache: Path, name: str, sha256: str) -> bytes | None:
    """The content of a file that was downloaded before, or None; a file that is not the right one is removed."""
    for path in _files(cache, name):
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
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmlib"
    except RuntimeError:
        message = (
            "the home folder was not to be found; DMLIB_DATA must name a folder with the data, or XDG_CACHE_HOME one"
        )
        raise RuntimeError(f"{message} for downloads") from None


def _parse(content: bytes) -> Tensor:
    """The bytes that follow the header: two zeros, the type 8, the number of axes, and big-endian lengths of these."""
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * axes).reshape(shape)
