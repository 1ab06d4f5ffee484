"""Measured curves from text files of unknown origin: columns of numbers under any header."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .header import Header, number, numbers, read_header
from .limits import check_function

__all__ = ["Measured", "check_function", "read_measured"]

_COMMENT = "#!;'%\""
_UNCERTAINTY_LABEL = re.compile(r"(d|e|err|sig|std|unc|δ|σ|±)", re.IGNORECASE)
_UNCERTAINTY_WORD = re.compile(r"err|sig|std|unc|dev|^\(?s$|σ|±|\+/?-", re.IGNORECASE)
_MINIMUM_POINTS = 5


@dataclass(frozen=True, eq=False)
class Measured:
    """One measured curve, with x in A or 1/A at the centres of its bins.

    x: [m] strictly increasing, r (A) or Q (1/A); y: [m]; uncertainty: [m], at least 0 (0 where the file gives none), or None;
    header: every line that is not data; path: the file; sha256: of its bytes; facts: what the header says, units as in the file;
    notes: what was done to the numbers of the file (bins shifted, units converted, rows dropped), one sentence each.
    """

    x: np.ndarray
    y: np.ndarray
    uncertainty: np.ndarray | None
    header: str
    path: Path
    sha256: str
    facts: Header
    notes: tuple[str, ...] = ()


def read_measured(path, *, columns: tuple[int, ...] | None = None, repeated: str = "refuse", layout: str | None = None) -> Measured:
    """Read columns x, y[, uncertainty] from a text file with any header.

    Understood: comments (# ! ; ' %), header lines of words or counts, blanks, tabs, commas or semicolons between numbers, Windows
    line ends, Latin-1, UTF-16 with its mark, Fortran exponents (1.0D-3). Two columns are x, y; three are x, y, uncertainty; four are x, y,
    (ignored), uncertainty, as PDFgetX2 and PDFgetN write them. An uncertainty column that is zero throughout means that there is none.
    The left bin edges of Gudrun (.mint01, .int01) become centres, and its empty first and last bins are dropped; an axis whose label
    says nm or 1/nm becomes A or 1/A. The count on the first line of RMCProfile, StoG and pystog files, and in Fit2D's header, must hold.

    columns: which columns (from 0) hold x, y[, uncertainty]; needed for five columns or more.
    repeated: "refuse", or "mean" to average the points that share one x, as digitised curves need.
    layout: overrules the layout that the header shows, one of `glassjax.io.header.LAYOUTS`.

    Raises FileNotFoundError, or ValueError naming the file, the line and what to do.
    """
    if repeated not in ("refuse", "mean"):
        raise ValueError(f'got repeated={repeated!r}; needs "refuse" or "mean"; pass one of them')
    path = Path(path)
    raw = _read_bytes(path)
    text = _decode(raw, path)
    facts = read_header(text, path, layout=layout)
    rows, at, header = _data_block(re.split(r"\r\n|\n|\r", text), path, facts.skip)
    columns = _choose_columns(rows.shape[1], columns, header, path)
    notes = _check_count(facts, len(rows), path)
    table = rows[:, list(columns)]
    _refuse_bad_values(table, at, path)
    if facts.left_edges:
        table, at, more = _from_left_edges(table, at)
        notes += more
    uncertainty, more = _errors(table)
    x, y, uncertainty = _in_order(table[:, 0], table[:, 1], uncertainty, at, path, repeated)
    notes += more + ([f"{len(table) - len(x)} repeated points averaged"] if len(x) < len(table) else [])
    x, y, uncertainty, more = _in_angstrom(x, y, uncertainty, facts)
    if len(x) < _MINIMUM_POINTS:
        raise ValueError(f"{path}: got {len(x)} points; needs at least {_MINIMUM_POINTS}; check that the file is complete")
    return Measured(x, y, uncertainty, "\n".join(header), path, hashlib.sha256(raw).hexdigest(), facts, tuple(notes + more))


def _check_count(facts: Header, rows: int, path: Path) -> list[str]:
    if facts.count is None or facts.count == rows:
        return []
    if facts.count_binds:
        raise ValueError(
            f"{path}: got {rows} lines of data under a header that says {facts.count} ({facts.layout} layout); needs as many as it says; "
            'restore the missing lines or correct the count; where that number is no count, put # before it and pass layout="columns"'
        )
    return [f"the header says {facts.count} points, the file holds {rows}"]


def _from_left_edges(table: np.ndarray, at: list[int]) -> tuple[np.ndarray, list[int], list[str]]:
    """Bin centres for left edges, and without the leading and trailing rows whose y and error are zero: bins that hold no data."""
    x = table[:, 0]
    width = np.diff(x, append=2 * x[-1] - x[-2]) if len(x) > 1 else np.zeros_like(x)
    table = np.column_stack([x + width / 2, table[:, 1:]])
    full = np.flatnonzero(np.any(table[:, 1:], axis=1))
    first, last = (full[0], full[-1] + 1) if full.size else (0, len(table))
    notes = ["half a bin added: left bin edges became centres"]
    notes += [f"{first} leading rows of zeros dropped"] * bool(first)
    notes += [f"{len(table) - last} trailing rows of zeros dropped"] * bool(last < len(table))
    return table[first:last], at[first:last], notes


def _errors(table: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    if table.shape[1] < 3:
        return None, []
    zero = int(np.sum(table[:, 2] == 0))
    if zero == len(table):
        return None, ["error column is all zero: absent"]
    return table[:, 2], [f"{zero} of {len(table)} errors are zero: kept as 0"] * bool(zero)


def _in_angstrom(x, y, uncertainty, facts: Header):
    """x, y and uncertainty in powers of A; y is converted where its label says nm, or says nothing and follows from the axis."""
    if facts.unit not in ("nm", "1/nm"):
        return x, y, uncertainty, []
    factor = 10.0 if facts.unit == "nm" else 0.1
    notes = [f"{facts.unit} converted to {facts.unit.replace('nm', 'A')}"]
    power = {"G": 2, "D": 2, "T": 2, "RDF": 1, "Q(S-1)": 1}.get(facts.function, 0)
    if power and facts.y_unit != "A":
        y, uncertainty = y / 10**power, None if uncertainty is None else uncertainty / 10**power
        notes.append(f"{facts.function} divided by {10**power}: nm^-{power} converted to A^-{power}")
    return x * factor, y, uncertainty, notes


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


def _data_block(lines: list[str], path: Path, skip: int) -> tuple[np.ndarray, list[int], list[str]]:
    """Data rows [m, columns], their line numbers (from 1), and the header: all comments, and all lines before the first data row.

    The first `skip` lines are header, whatever they look like.
    """
    start = max((i + 1 for i, line in enumerate(lines) if re.match(r"[#\s]*start data", line, re.IGNORECASE)), default=skip)
    header, body = [line for line in lines[:start] if line.strip()], []
    for at, line in enumerate(lines[start:], start=start + 1):
        if line.strip() and line.lstrip()[0] in _COMMENT:
            header.append(line)
        elif line.strip():
            body.append((at, line, numbers(line)))
    lengths = [len(values) for _, _, values in body if values is not None]
    if not lengths:
        raise ValueError(f"{path}: got no line of numbers; needs columns x, y[, uncertainty]; check that this is the right file")
    width = max(sorted(set(lengths), reverse=True), key=lengths.count)
    if width == 1:
        first = next(at for at, _, values in body if values is not None)
        raise ValueError(f"{path}, line {first}: got one column of numbers; needs at least two, x and y; export the curve with its x axis")
    first = next(i for i, (_, _, values) in enumerate(body) if values is not None and len(values) == width)
    header += [line for _, line, _ in body[:first]]
    for at, line, values in body[first:]:
        if re.search(r"\d,\d", line) and re.search(r"\d\s+[-+\d]|;", line.strip()) and "." not in line:
            raise ValueError(f"{path}, line {at}: got decimal commas in {line.strip()!r}; needs decimal points; replace the commas")
        if values is None:
            got = repr(line.strip()[:60])
            raise ValueError(f"{path}, line {at}: got {got}; needs numbers from line {body[first][0]} on; remove it or put # before it")
        if len(values) != width:
            raise ValueError(f"{path}, line {at}: got {len(values)} columns; needs {width} as in the other lines; complete or remove the line")
    return np.array([values for _, _, values in body[first:]]), [at for at, _, _ in body[first:]], header


def _labels(header: list[str], width: int) -> list[str]:
    """Column labels: the last header line that holds one word per column and no number."""
    for line in reversed(header):
        words = [word for word in re.split(r"[\s,;]+", re.sub(r"^(#L\s|[#!;'%\"\s])+", "", line)) if word]
        if len(words) == width and all(number(word) is None for word in words):
            return words
    return []


def _choose_columns(width: int, columns, header: list[str], path: Path) -> tuple[int, ...]:
    if columns is not None:
        if len(columns) not in (2, 3) or any(isinstance(c, bool) or c != int(c) or not 0 <= c < width for c in columns):
            raise ValueError(f"{path}: got columns={columns}; needs 2 or 3 numbers from 0 to {width - 1}, for x, y[, uncertainty]; correct columns")
        return tuple(int(c) for c in columns)
    labels = _labels(header, width)
    axis_named = bool(labels) and re.match(r"(?:[rQq](?:\b|[(_\[/])|2-?[Tt]h|tth)", labels[0]) is not None
    third_is_curve = width == 3 and axis_named and not (_UNCERTAINTY_LABEL.match(labels[2]) or _UNCERTAINTY_WORD.search(labels[2]))
    if width > 4 or third_is_curve or (width == 4 and labels and not _UNCERTAINTY_LABEL.match(labels[3])):
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
