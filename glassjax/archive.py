"""Files that are there whole or not at all: any bytes, or arrays with a JSON header; and what a record keeps of one that was read."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np


def write_whole(path, content: bytes) -> None:
    """Write a file under another name and rename it, so that it is there whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def prove_writable(folder) -> None:
    """Make a folder and write a file there that nobody else can have named; raises ``OSError`` where that fails."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


class CorruptedArchive(ValueError):
    """A file that is no archive of ours, or not all of one."""


def write_arrays(path, header: dict, arrays: dict[str, np.ndarray], *, compress: bool = True) -> None:
    """Write a JSON header and arrays to one zip file, whole or not at all."""
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, __header__=np.array(json.dumps(header)), **arrays)
    write_whole(path, buffer.getvalue())


def read_arrays(path) -> tuple[dict, dict[str, np.ndarray]]:
    """The inverse of `write_arrays`.

    Raises:
      FileNotFoundError: no such file.
      CorruptedArchive: not such a file, truncated or corrupted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; needs one written by glassjax; check the path")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(str(arrays.pop("__header__")))
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError, RuntimeError, SyntaxError, struct.error, zlib.error) as error:
        raise CorruptedArchive(str(error)) from error
    return header, arrays


def file_record(path) -> dict[str, str]:
    """What a record keeps of a file that was read: its name as given, and the SHA-256 of its bytes."""
    return dict(file=str(path), sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest())
