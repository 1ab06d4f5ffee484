"""Measured curves from text files of unknown origin: columns of numbers under any header."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .limits import check_function

__all__ = ["Measured", "check_function", "read_measured"]

_COMMENT = "#!;'%\""
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+|[+-]\d{3})?|nan|inf|infinity)", re.IGNORECASE)
_UNCERTAINTY_LABEL = re.compile(r"(d|e|err|sig|std|unc|δ|σ|±)", re.IGNORECASE)
_MINIMUM_POINTS = 5


@dataclass(frozen=True, eq=False)
class Measured:
    """One measured curve as it stands in the file: no unit is converted and no bin is shifted.

    x: [m] strictly increasing, r (A) or Q (1/A); y: [m]; uncertainty: [m], at least 0 (0 where the file gives none), or None;
    header: every line that is not data; path: the file; sha256: of its bytes.
    """

    x: np.ndarray
    y: np.ndarray
    uncertainty: np.ndarray | None
    header: str
    path: Path
    sha256: str


def read_measured(path, *, columns: tuple[int, ...] | None = None, repeated: str = "refuse") -> Measured:
    """Read columns x, y[, uncertainty] from a text file with any header.

    Understood: comments (# ! ; ' %), header lines of words or counts, blanks, tabs, commas or semicolons between numbers, Windows
    line ends, Latin-1, Fortran exponents (1.0D-3). Two columns are x, y; three are x, y, uncertainty; four are x, y, (ignored),
    uncertainty, as PDFgetX2 and PDFgetN write them. An uncertainty column that is zero throughout means that there is none.

    columns: which columns (from 0) hold x, y[, uncertainty]; needed for five columns or more.
    repeated: "refuse", or "mean" to average the points that share one x, as digitised curves need.

    Raises FileNotFoundError, or ValueError naming the file, the line and what to do.
    """
    if repeated not in ("refuse", "mean"):
        raise ValueError(f'got repeated={repeated!r}; needs "refuse" or "mean"; pass one of them')
    path = Path(path)
    raw = _read_bytes(path)
    lines = re.split(r"\r\n|\n|\r", _decode(raw, path))
    rows, numbers, header = _data_block(lines, path)
    columns = _choose_columns(rows.shape[1], columns, header, path)
    table = rows[:, list(columns)]
    _refuse_bad_values(table, numbers, path)
    x, y = table[:, 0], table[:, 1]
    uncertainty = table[:, 2] if table.shape[1] == 3 and np.any(table[:, 2]) else None
    x, y, uncertainty = _in_order(x, y, uncertainty, numbers, path, repeated)
    if len(x) < _MINIMUM_POINTS:
        raise ValueError(f"{path}: got {len(x)} points; needs at least {_MINIMUM_POINTS}; check that the file is complete")
    return Measured(x, y, uncertainty, "\n".join(header), path, hashlib.sha256(raw).hexdigest())


def _read_bytes(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path}: got no such file; needs a text file of columns x, y[, uncertainty]; check the path")
    if path.is_dir():
        raise ValueError(f"{path}: got a directory; needs a text file of columns x, y[, uncertainty]; name the file inside it")
    raw = path.read_bytes()
    if not raw.strip():
        raise ValueError(f"{path}: got an empty file; needs columns x, y[, uncertainty]; check that it was written or downloaded whole")
    return raw


def _decode(raw: bytes, path: Path) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16")
    if b"\0" in raw:
        raise ValueError(f"{path}: got a binary file; needs text with columns x, y[, uncertainty]; export the curve as text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _number(token: str) -> float | None:
    if not _NUMBER.fullmatch(token):
        return None
    token = re.sub(r"(?<=[\d.])(?=[+-]\d{3}$)", "e", re.sub("[dD]", "e", token)) if "n" not in token.lower() else token
    return float(token)


def _numbers(line: str) -> list[float] | None:
    """The numbers of a data line (a trailing comment is cut), or None when it holds anything else."""
    body = re.split(r"[#!]", line, maxsplit=1)[0].strip()
    values = [_number(token) for token in re.split(r"\s*[,;]\s*|\s+", body.rstrip(",;"))]
    return None if not values or None in values else values


def _data_block(lines: list[str], path: Path) -> tuple[np.ndarray, list[int], list[str]]:
    """Data rows [m, columns], their line numbers (from 1), and the header: all comments, and all lines before the first data row."""
    start = max((i + 1 for i, line in enumerate(lines) if re.match(r"[#\s]*start data", line, re.IGNORECASE)), default=0)
    header, body = [line for line in lines[:start] if line.strip()], []
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.strip() and line.lstrip()[0] in _COMMENT:
            header.append(line)
        elif line.strip():
            body.append((number, line, _numbers(line)))
    lengths = [len(values) for _, _, values in body if values is not None]
    if not lengths:
        raise ValueError(f"{path}: got no line of numbers; needs columns x, y[, uncertainty]; check that this is the right file")
    width = max(sorted(set(lengths), reverse=True), key=lengths.count)
    if width == 1:
        first = next(number for number, _, values in body if values is not None)
        raise ValueError(f"{path}, line {first}: got one column of numbers; needs at least two, x and y; export the curve with its x axis")
    first = next(i for i, (_, _, values) in enumerate(body) if values is not None and len(values) == width)
    header += [line for _, line, _ in body[:first]]
    for number, line, values in body[first:]:
        if re.search(r"\d,\d", line) and re.search(r"\d\s+[-+\d]|;", line.strip()) and "." not in line:
            raise ValueError(f"{path}, line {number}: got decimal commas in {line.strip()!r}; needs decimal points; replace the commas")
        if values is None:
            got = repr(line.strip()[:60])
            raise ValueError(f"{path}, line {number}: got {got}; needs numbers from line {body[first][0]} on; remove it or put # before it")
        if len(values) != width:
            raise ValueError(f"{path}, line {number}: got {len(values)} columns; needs {width} as in the other lines; complete or remove the line")
    return np.array([values for _, _, values in body[first:]]), [number for number, _, _ in body[first:]], header


def _labels(header: list[str], width: int) -> list[str]:
    """Column labels: the last header line that holds one word per column and no number."""
    for line in reversed(header):
        words = [word for word in re.split(r"[\s,;]+", re.sub(r"^(#L\s|[#!;'%\"\s])+", "", line)) if word]
        if len(words) == width and all(_number(word) is None for word in words):
            return words
    return []


def _choose_columns(width: int, columns, header: list[str], path: Path) -> tuple[int, ...]:
    if columns is not None:
        if len(columns) not in (2, 3) or any(isinstance(c, bool) or c != int(c) or not 0 <= c < width for c in columns):
            raise ValueError(f"{path}: got columns={columns}; needs 2 or 3 numbers from 0 to {width - 1}, for x, y[, uncertainty]; correct columns")
        return tuple(int(c) for c in columns)
    labels = _labels(header, width)
    if width > 4 or (width == 4 and labels and not _UNCERTAINTY_LABEL.match(labels[3])):
        names = f" ({', '.join(labels)})" if labels else ""
        raise ValueError(f"{path}: got {width} columns{names}; needs x, y[, uncertainty]; say which, as columns=(0, 1, 2) counted from 0")
    return {2: (0, 1), 3: (0, 1, 2), 4: (0, 1, 3)}[width]


def _refuse_bad_values(table: np.ndarray, numbers: list[int], path: Path) -> None:
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if bad.size:
        raise ValueError(f"{path}, line {numbers[bad[0]]}: got NaN or infinity ({bad.size} such lines); needs finite numbers; remove those lines")
    negative = np.flatnonzero(table[:, 2] < 0) if table.shape[1] == 3 else np.array([], dtype=int)
    if negative.size:
        raise ValueError(
            f"{path}, line {numbers[negative[0]]}: got a negative uncertainty, {table[negative[0], 2]:g} ({negative.size} such lines); needs "
            "uncertainties of at least 0; remove the column if it is something else, or say which columns hold what"
        )


def _in_order(x, y, uncertainty, numbers: list[int], path: Path, repeated: str):
    """x strictly increasing: descending x is refused; repeated x is refused, or averaged with its uncertainties in quadrature."""
    step = np.diff(x)
    back = np.flatnonzero(step < 0)
    if back.size:
        at = back[0] + 1
        raise ValueError(f"{path}, line {numbers[at]}: got x = {x[at]:g} after {x[at - 1]:g}; needs x in increasing order; sort the lines by x")
    same = np.flatnonzero(step == 0)
    if same.size and repeated == "refuse":
        at = same[0] + 1
        raise ValueError(
            f'{path}, line {numbers[at]}: got x = {x[at]:g} again ({same.size} repeats); needs each x once; pass repeated="mean" to average them'
        )
    if same.size:
        unique, owner, count = np.unique(x, return_inverse=True, return_counts=True)
        x, y = unique, np.bincount(owner, y) / count
        uncertainty = None if uncertainty is None else np.sqrt(np.bincount(owner, uncertainty**2)) / count
    return x, y, uncertainty
