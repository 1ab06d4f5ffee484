"""Columns of X-ray absorption text files: which column is which curve, and the background and Fourier parameters that headers state."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np

from ..absorption import window_name
from .header import number, numbers

__all__ = ["ascending", "decoded", "read_columns"]

_COMMENT = "#%;!*"
_ENERGY = re.compile(r"(?:e|en|energy|omega|mono_?energy)(?:[\W_]*k?ev\W?)?", re.IGNORECASE)
_WAVENUMBER = re.compile(r"(?:k|wavenumber)(?:[\W_].*)?", re.IGNORECASE)
_NORMALISED = re.compile(r"(?:norm(?:alised|alized)?|nor|flat|xnorm|norm(?:trans|fluor)|mu_?norm(?:alised|alized)?)", re.IGNORECASE)
_RAW = re.compile(r"(?:xmu|mu|mu\(e\)|mux|mutrans|mufluor|absorbance|absorption)", re.IGNORECASE)
_CHI = re.compile(r"chi(?:\(k\))?", re.IGNORECASE)
_POWER = re.compile(  # chi(k)*k^2, chik2, chi(k) k^2; k^2*chi(k), k2chi, kchi
    r"chi(?:\(k\))?(?:[ _.]*\*[ _.]*k(?:(?:\^|\*\*)?([1-4]))?|k(?:\^|\*\*)?([1-4])?| k(?:\^|\*\*)([1-4]))(?![\w(])"
    r"|(?<![a-z(])k(?:(?:\^|\*\*)?([1-4])[ _.]*\*?[ _.]*|[ _.]*\*[ _.]*|)chi(?:\(k\))?(?!\w)",
    re.IGNORECASE,
)
_COUNTS = ((("itrans", "it", "i1"), "transmission, ln(i0 / {})"), (("ifluor", "if", "iff"), "fluorescence, {} / i0"))
_VALUE = r"\s*[=:]\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_FEFF = ["omega", "e", "k", "mu", "mu0", "chi"]


def decoded(path: Path) -> tuple[bytes, str]:
    """(bytes, text) of a file, gunzipped where it is gzipped. Raises FileNotFoundError, or ValueError for what holds no text."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: got no such file; needs an X-ray absorption file; check the path")
    if path.is_dir():
        raise ValueError(f"{path}: got a directory; needs an X-ray absorption file; name the file inside it")
    raw = content = path.read_bytes()
    if raw.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(raw)
        except (EOFError, OSError) as error:
            raise ValueError(f"{path}: got a damaged gzip file ({error}); needs a whole one; copy or save it again") from error
    if not content.strip():
        raise ValueError(f"{path}: got an empty file; needs columns of energy and mu, or k and chi; check that it was written whole")
    if b"\0" in content:
        raise ValueError(f"{path}: got a binary file; needs an Athena project or text in columns; export the curve as text")
    try:
        return raw, content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw, content.decode("latin-1")


def ascending(x: np.ndarray, y: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """x and y with x strictly increasing, and notes. Points that share one x are averaged; small jitter is sorted.

    Raises ValueError for values that are not finite, and where x returns by a fifth of its range: several scans in one curve.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{path}: got NaN or infinity in the curve; needs finite numbers; remove those points")
    notes = []
    if len(x) > 1 and (np.diff(x) <= 0).all():
        x, y, notes = x[::-1], y[::-1], ["descending: order reversed"]
    back = np.flatnonzero(np.diff(x) < 0)
    if back.size and -np.diff(x).min() > 0.2 * np.ptp(x):
        raise ValueError(
            f"{path}: got x = {x[back[0] + 1]:g} after {x[back[0]]:g}, several scans one after another; needs one averaged curve; average them"
        )
    unique, owner, count = np.unique(x, return_inverse=True, return_counts=True)
    notes += [f"{back.size} points out of order: sorted"] * bool(back.size)
    notes += [f"{len(x) - len(unique)} points with an x met before: averaged"] * (len(unique) < len(x))
    return unique, np.bincount(owner, y) / count, tuple(notes)


def read_columns(text: str, path: Path, *, group: str | None = None, kpower: int | None = None) -> tuple[dict, str | None]:
    """(fields of an Absorption: kind, x, y, label, notes and what the header states; unit of the energy, or None).

    kind is "mu", "normalised", "chi", "computed" (FEFF's mu) or "open" (mu(E), not said which). Raises ValueError.
    """
    lines = re.split(r"\r\n|\n|\r", text)
    _refuse_diffraction(lines, path)
    header, table = _table(lines, path)
    fields = _stated("\n".join(header), path)
    labels, unit = _labels(header, table.shape[1])
    if [label.lower() for label in labels] == _FEFF:
        return _from_feff(fields, table, group, path)
    axis, column, kind, notes = _choose(labels, table, group, path)
    if axis == "k":
        title = labels[column] if labels else ""
        y, more = _unweighted(table[:, 0], column, title, table, header, kpower, path)
        above = np.ones(len(y), dtype=bool) if np.isfinite(y).all() else np.isfinite(y)
        return fields | {"kind": "chi", "x": table[above, 0], "y": y[above], "notes": (*fields["notes"], *notes, *more)}, None
    y, notes = (table[:, column], notes) if isinstance(column, int) else (column, notes)
    if kind == "open" and re.search(r"normali[sz]ed mu", "\n".join(header), re.IGNORECASE):
        kind = "normalised"
    return fields | {"kind": kind, "x": table[:, 0], "y": y, "notes": (*fields["notes"], *notes)}, unit


def _refuse_diffraction(lines: list[str], path: Path) -> None:
    head = [line.strip() for line in lines[:5]]
    counted = len(head) > 4 and re.fullmatch(r"\d+(\s+\d+)?", head[3]) and len(numbers(head[4]) or ()) >= 2
    fit2d = counted and not any(line[:1] in tuple(_COMMENT) for line in head[:3] if line) and any(numbers(line) is None for line in head[1:3])
    if fit2d or re.search(r"chi_Q\s+chi_I|2[-_ ]?theta", "\n".join(lines[:40]), re.IGNORECASE):
        raise ValueError(f"{path}: got a diffraction pattern (the layout of Fit2D or PyFAI); needs X-ray absorption; read it with read_measured")


def _table(lines: list[str], path: Path) -> tuple[list[str], np.ndarray]:
    """The header, and the rows of numbers below it, [m, columns]."""
    header, rows = [], []
    for at, line in enumerate(lines, start=1):
        body = line.strip()
        if not body:
            continue
        values = None if body[0] in _COMMENT else numbers(body)
        if values is not None and (rows or len(values) > 1):
            if rows and len(values) != len(rows[0]):
                raise ValueError(f"{path}, line {at}: got {len(values)} columns; needs {len(rows[0])} as above; complete or remove the line")
            rows.append(values)
        elif not rows or body[0] in _COMMENT:
            header.append(body)
        else:
            raise ValueError(f"{path}, line {at}: got {body[:60]!r}; needs numbers below the first line of data; remove it or put # before it")
    if not rows:
        raise ValueError(f"{path}: got no line of numbers; needs columns of energy and mu, or k and chi; check that this is the right file")
    return header, np.array(rows)


def _labels(header: list[str], width: int) -> tuple[list[str], str | None]:
    """(a label per column or [], unit of the first column or None): from `Column.N: name unit`, else the last line of as many words."""
    named = dict(re.findall(r"^[#%;!*]\s*Column\.(\d+):\s*(.*?)\s*$", "\n".join(header), re.MULTILINE | re.IGNORECASE))
    words = [named.get(str(i + 1), "").split() for i in range(width)]
    if all(words):
        unit = words[0][1].lower() if len(words[0]) > 1 else ""
        return [word[0] for word in words], {"ev": "eV", "kev": "keV"}.get(unit)
    for line in reversed(header):
        words = re.sub(r"@#|^[#%;!*\s]+|[,;]", " ", line).split()
        known = len(words) == width and (_ENERGY.fullmatch(words[0]) or _WAVENUMBER.fullmatch(words[0]))
        if known and all(number(word) is None for word in words):
            return words, "keV" if re.search(r"kev", words[0], re.IGNORECASE) else None
    return [], None


def _from_feff(fields: dict, table: np.ndarray, group: str | None, path: Path) -> tuple[dict, str]:
    """FEFF's xmu.dat, columns omega, e, k, mu, mu0, chi: mu normalised by the step at 50 eV; k = 0 at the edge, negative below it."""
    omega, k, mu, chi = table[:, 0], table[:, 2], table[:, 3], table[:, 5]
    e0 = float(np.interp(0, k, omega))
    if group not in (None, "mu", "chi"):
        raise ValueError(f'{path}: got group={group!r}; needs "mu" or "chi" of a FEFF file; correct group')
    if group == "chi":
        return fields | {"kind": "chi", "x": k[k >= 0], "y": chi[k >= 0], "e0": e0, "notes": (*fields["notes"], "chi(k) of FEFF")}, "eV"
    return fields | {"kind": "computed", "x": omega, "y": mu, "e0": e0, "notes": (*fields["notes"], "normalised mu(E) of FEFF")}, "eV"


def _choose(labels: list[str], table: np.ndarray, group: str | None, path: Path):
    """("k" or "energy", index of the y column or the values themselves, kind, notes)."""
    if labels and group is not None:
        found = [i for i, label in enumerate(labels) if label.lower() == group.lower() and i > 0]
        if not found:
            raise ValueError(f"{path}: got group={group!r}; needs one of the columns {', '.join(labels[1:])}; correct group")
    axis = _axis(labels, table[:, 0], path)
    if not labels:
        if table.shape[1] > 2:
            raise ValueError(f"{path}: got {table.shape[1]} columns without labels; needs two, or a line such as '# energy xmu i0'; add one")
        return axis, 1, "open", []
    if group is not None:
        return axis, found[0], _kind(labels[found[0]]), [f"column {labels[found[0]]}"]
    if axis == "k":
        exact = [i for i, label in enumerate(labels) if i and _CHI.fullmatch(label)]
        exact = exact if exact else [i for i, label in enumerate(labels) if i and _POWER.search(label)]
        return axis, _only(exact if exact else range(1, len(labels)), labels, path), "chi", []
    raw = [i for i, label in enumerate(labels) if i and _RAW.fullmatch(label)]
    flat = [i for i, label in enumerate(labels) if i and _NORMALISED.fullmatch(label)]
    flat = [i for i in flat if labels[i].lower() != "flat"] if len(flat) > 1 else flat
    if raw or flat:
        chosen = _preferred(raw if raw else flat, labels, path)
        return axis, chosen, _kind(labels[chosen]), []
    return _from_counts(labels, table, path)


def _from_counts(labels: list[str], table: np.ndarray, path: Path):
    """mu from counts, or the only other column."""
    lower = [label.lower() for label in labels]
    for names, what in _COUNTS:
        signals = [i for i, label in enumerate(lower) if re.fullmatch(rf"(?:{'|'.join(names)})(?:_?\d+)?", label)]
        if signals and "i0" in lower:
            i0, signal = table[:, lower.index("i0")], table[:, _only(signals, labels, path)]
            if (i0 <= 0).any() or (signal <= 0).any():
                raise ValueError(f"{path}: got counts that are not positive; needs positive i0 and {labels[signals[0]]}; remove those points")
            mu = np.log(i0 / signal) if "ln" in what else signal / i0
            return "energy", mu, "mu", ["mu from counts in " + what.format(labels[signals[0]])]
    return "energy", _only(range(1, len(labels)), labels, path), "open", []


def _only(columns, labels: list[str], path: Path) -> int:
    columns = list(columns)
    if len(columns) > 1:
        names = ", ".join(labels[i] for i in columns)
        raise ValueError(f"{path}: got {len(columns)} curves ({names}), not averaged; needs one; pass group= one of them, or average them")
    return columns[0]


def _preferred(columns: list[int], labels: list[str], path: Path) -> int:
    """The only column, or transmission where both it and fluorescence are there."""
    transmission = [i for i in columns if labels[i].lower().endswith("trans")]
    return transmission[0] if len(transmission) == 1 and len(columns) == 2 else _only(columns, labels, path)


def _kind(label: str) -> str:
    return "normalised" if _NORMALISED.fullmatch(label) else "mu" if _RAW.fullmatch(label) else "open"


def _axis(labels: list[str], x: np.ndarray, path: Path) -> str:
    """ "k" or "energy": by the label of the first column, else by its values."""
    if labels and _WAVENUMBER.fullmatch(labels[0]):
        return "k"
    if labels and _ENERGY.fullmatch(labels[0]):
        return "energy"
    if labels:
        raise ValueError(f"{path}: got {labels[0]!r} as the first column; needs energy or k; convert it, and label it 'energy' or 'k'")
    spread = np.max(x) > 2 * np.min(x)  # an edge scan spans far less than a factor 2; k begins near 0
    return "k" if np.max(x) < 40 and (spread or np.min(x) <= 0) else "energy"


def _unweighted(x, column: int, label: str, table: np.ndarray, header: list[str], kpower: int | None, path: Path):
    """(chi(k) without its k^n, notes). The power is `kpower`, else that of the label, else that of a title above unlabelled data."""
    y, plain = table[:, column], _CHI.fullmatch(label) is not None
    words = [] if plain and table.shape[1] > 2 else [label, *header[:1], *header[-1:]]
    found = next((hit for word in words if (hit := _POWER.search(word))), None)
    power = 0 if found is None else next((int(digit) for digit in found.groups() if digit), 1)
    power = power if kpower is None else kpower
    if power not in (0, 1, 2, 3, 4):
        raise ValueError(f"{path}: got kpower={kpower!r}; needs an integer from 0 to 4; correct it")
    if power == 0:
        return y, []
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, y / x**power, np.nan), [f"k^{power} chi(k): divided by k^{power}"]


def _stated(header: str, path: Path) -> dict:
    """What a header states of e0 (eV), edge, background and Fourier transform: XDI fields first, then the lines of Ifeffit and Athena."""
    xdi = {key.lower(): value for key, value in re.findall(r"^[#%;!*]\s*([A-Za-z]\w*\.\w+):[ \t]*(.*?)\s*$", header, re.MULTILINE)}
    forward = re.search(r"(?:Fore?ward FT.*?)(?=Backward|\Z)", header, re.IGNORECASE | re.DOTALL)
    forward, background = (forward[0], header[: forward.start()]) if forward else ("", header)

    def stated(key: str, pattern: str, where: str = background) -> float | None:
        hit = re.search(pattern, where, re.IGNORECASE | re.MULTILINE)
        value = xdi.get(key, "").split()
        return number(value[0]) if value else (None if hit is None else float(hit[1]))

    low, high = (number(value) for value in (xdi.get("athena.k_range", "").split() + ["-", "-"])[:2])
    if hit := re.search(r"k-range:\s*\[\s*([\d.]+)\s*:\s*([\d.]+)", forward):
        low, high = float(hit[1]), float(hit[2])
    named, notes = xdi.get("athena.window", ""), ()
    if hit := re.search(r"Window\s*=\s*([\w-]+)", forward):
        named = hit[1]
    try:
        window = window_name(named) if named else None
    except ValueError:
        window, notes = None, (f"window {named!r} of the header is not known: left open",)
    element = re.search(r"\bElement\s*=\s*([A-Z][a-z]?)\b", header)
    edge = re.search(r"\bEdge\s*=\s*([KLM]\d?)\b|^#%edge:\s*([KLM]\d?)\b", header, re.IGNORECASE | re.MULTILINE)
    edge = xdi.get("element.edge") if edge is None else next(word for word in edge.groups() if word)
    return {
        "e0": stated("athena.e0", r"^[#.\s]*e0" + _VALUE),
        "element": xdi.get("element.symbol") if element is None else element[1],
        "edge": None if edge is None else edge.upper(),
        "kmin": low,
        "kmax": high,
        "kweight": stated("athena.kweight", r"\bk-?weight" + _VALUE, forward),
        "dk": stated("athena.dk", r"\bdk" + _VALUE, forward),
        "window": window,
        "rbkg": stated("athena.rbkg", r"\brbkg" + _VALUE),
        "background_kweight": stated("athena.bkg_kweight", r"\bk-?weight" + _VALUE, background if "Background parameters" in background else ""),
        "edge_step": stated("athena.edge_step", r"\bedge[ _]step" + _VALUE),
        "label": xdi.get("sample.name", path.stem),
        "notes": notes,
    }
