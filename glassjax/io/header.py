"""What the header of a measured file says: layout, function, axis and unit, radiation, resolution, number of points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LAYOUTS", "Header", "number", "numbers", "read_header"]

LAYOUTS = ("pdfgetx3", "pdfgetx2", "pdfgetn", "mantid", "gudrun", "rmcprofile", "pystog", "xye", "fit2d", "columns")
_COMMENT = "#!;'%\""
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+|[+-]\d{3})?|nan|inf|infinity)", re.IGNORECASE)
_GUDRUN_SUFFIX = re.compile(r"\.m?(int|dcs)\d{2}$", re.IGNORECASE)
_TWO_THETA = r"(?:2[\s\-_*]*(?:theta|θ|th)|two[\s\-_]*theta|tth|ttheta)(?![a-z])"
_OUTPUT = {"gr": "G", "fq": "Q(S-1)", "sq": "S", "iq": "I"}
_TITLE = r"\b([SFGDTg])\(([Qqr])\)"  # in the title line of RMCProfile
# labels of y and the function they name; "F" and "G" mean what the layout's program means by them
_Y_LABELS = (
    (r"Q\s?\*?[\[(]S(\([Qq]\))?-1[\])]", "Q(S-1)"),
    (r"F_?[Kk](een)?\b", "F_keen"),
    (r"G_?[Kk](een)?\b", "G_keen"),
    (r"\(?S(\([Qq]\))?-1", None),
    (r"S\b", "S"),
    (r"F\b", "F"),
    (r"G\b", "G"),
    (r"g\b", "g"),
    (r"D\b", "D"),
    (r"T\b", "T"),
    (r"RDF\b|R\(", "RDF"),
    (r"I\b|chi_I|[Ii]nt|[Cc]ounts", "I"),
)
_LOCAL = {
    **{layout: {"F": "Q(S-1)", "G": "G"} for layout in ("pdfgetx2", "pdfgetx3", "pdfgetn")},
    **{layout: {"F": "F_keen", "G": "G_keen"} for layout in ("rmcprofile", "pystog")},
    "columns": {"F": None, "G": "G"},
}
_ERROR_COLUMN = {"pdfgetx2": 3, "pdfgetn": 3, "gudrun": 2, "xye": 2}


@dataclass(frozen=True)
class Header:
    """What a header says, not what the data are: words alone are not trustworthy, see `identify`.

    layout: one of LAYOUTS. function: "g", "G", "G_keen", "D", "T", "RDF", "S", "F_keen", "Q(S-1)", "I", or None. radiation: "neutron",
    "xray" or None. axis: "r", "Q", "2theta" or None; unit: its unit as in the file, "A", "nm", "1/A", "1/nm", "deg" or None; y_unit: the
    length unit in the label of y, "A", "nm" or None. qmin, qmax (1/A), qdamp, qbroad (1/A), wavelength (A), rpoly (A), composition: as
    written, or None. count: declared number of points, or None; count_binds: the layout makes it binding. left_edges: x is the left edge
    of each bin. error_column: the column that this layout keeps errors in, from 0, or None. skip: leading lines that are not data
    whatever they look like. label: the line that names the columns, or "".
    """

    layout: str
    function: str | None = None
    radiation: str | None = None
    axis: str | None = None
    unit: str | None = None
    y_unit: str | None = None
    qmin: float | None = None
    qmax: float | None = None
    qdamp: float | None = None
    qbroad: float | None = None
    wavelength: float | None = None
    composition: str | None = None
    rpoly: float | None = None
    count: int | None = None
    count_binds: bool = False
    left_edges: bool = False
    error_column: int | None = None
    skip: int = 0
    label: str = ""


def number(token: str) -> float | None:
    """The value of one token (Fortran exponents such as 1.0D-3 and 1.0-003 included), or None when it is not a number."""
    if not _NUMBER.fullmatch(token):
        return None
    token = re.sub(r"(?<=[\d.])(?=[+-]\d{3}$)", "e", re.sub("[dD]", "e", token)) if "n" not in token.lower() else token
    return float(token)


def numbers(line: str) -> list[float] | None:
    """The numbers of a data line (a trailing comment is cut), or None when it holds anything else."""
    body = re.split(r"[#!]", line, maxsplit=1)[0].strip()
    values = [number(token) for token in re.split(r"\s*[,;]\s*|\s+", body.rstrip(",;"))]
    return None if not values or None in values else values


def read_header(text: str, path: str | Path, *, layout: str | None = None) -> Header:
    """What the header of a text file says.

    text: the whole file; path: its name, whose suffix counts (.mint01, .xye, .chi, .gr, .fq, .sq); layout: one of LAYOUTS, to overrule
    what is recognised. Raises ValueError for another layout.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"{path}: got layout={layout!r}; needs one of {', '.join(LAYOUTS)}; pass one of them, or None to recognise it")
    lines, suffix = re.split(r"\r\n|\n|\r", text), Path(path).suffix.lower()
    count, skip = _count_and_skip(lines)
    head = _head(lines, skip)
    if layout is None:
        layout = _layout(head, skip, suffix)
    if layout == "mantid":
        count = next((int(found[1]) for line in head if (found := re.fullmatch(r"#\s*(\d+)\s*", line))), None)
    label = _label(head)
    axis, unit, y_unit = _axis(label, head, layout, suffix)
    return Header(
        layout=layout,
        function=_function(label, head, layout, suffix, axis),
        radiation=_radiation(head, layout),
        axis=axis,
        unit=unit,
        y_unit=y_unit,
        **_values(head),
        count=count,
        count_binds=layout in ("rmcprofile", "pystog", "fit2d") and count is not None,
        left_edges=layout == "gudrun" and axis == "Q",
        error_column=_ERROR_COLUMN.get(layout),
        skip=skip,
        label=label,
    )


def _count_and_skip(lines: Sequence[str]) -> tuple[int | None, int]:
    """(declared number of points, lines that belong to the header) of a file that begins with N and a title, or has N on line 4."""
    if not lines:
        return None, 0
    if re.fullmatch(r"\s*\d+\s*", lines[0]) and len(lines) > 2:
        rows = [len(numbers(line) or ()) if line.strip() and line.lstrip()[0] not in _COMMENT else 0 for line in lines]
        if max(rows[2:]) < 2:
            return None, 0
        declared, after = int(lines[0]), sum(row >= 2 for row in rows[2:])
        untitled = rows[1] >= 2 and after != declared and rows[1] == rows[2]  # line 2 may be a title that looks like numbers
        return declared, 1 if untitled else 2
    if len(lines) > 4 and re.fullmatch(r"\s*\d+(\s+\d+)?\s*", lines[3]) and any(numbers(line) is None for line in lines[1:3] if line.strip()):
        if not any(line.strip()[:1] in tuple(_COMMENT) for line in lines[:3]) and len(numbers(lines[4]) or ()) >= 2:
            return int(lines[3].split()[0]), 4
    return None, 0


def _head(lines: Sequence[str], skip: int) -> list[str]:
    """The lines above the data: those of `skip`, all up to "start data", then all up to the first line of two numbers or more."""
    start = max((i + 1 for i, line in enumerate(lines) if re.match(r"[#\s]*start data", line, re.IGNORECASE)), default=skip)
    for index in range(start, len(lines)):
        line = lines[index].strip()
        if line and line[0] not in _COMMENT and len(numbers(line) or ()) >= 2:
            return [line for line in lines[:index] if line.strip()]
    return [line for line in lines if line.strip() and (line.lstrip()[0] in _COMMENT or numbers(line) is None)]


def _layout(head: Sequence[str], skip: int, suffix: str) -> str:
    text = "\n".join(head)
    comments = [line for line in head if line.lstrip().startswith("#")]
    triples = [len(numbers(line.lstrip(" #")) or ()) == 3 for line in comments[-3:]]
    if _GUDRUN_SUFFIX.search(suffix) or (len(comments) == 14 and all(triples)):
        return "gudrun"
    if re.search(r"PDFgetN|^#O0\b", text, re.MULTILINE):
        return "pdfgetn"
    if re.search(r"^#+ *General_Setting|PDFgetX2|d_r\s+d_Gr", text, re.MULTILINE):
        return "pdfgetx2"
    if re.search(r"pdfgetx3|xPDFsuite Configuration|^\[DEFAULT\]|^\[PDF\]", text, re.MULTILINE | re.IGNORECASE):
        return "pdfgetx3"
    if skip == 4 or re.search(r"chi_Q\s+chi_I", text) or (suffix == ".chi" and len(head) == 4):
        return "fit2d"
    if skip:
        return "pystog" if len(head) > 1 and head[1].lstrip().startswith("#") else "rmcprofile"
    if comments and re.fullmatch(r"#\s*\d+\s*", comments[0]):
        return "mantid"
    return "xye" if suffix == ".xye" else "columns"


def _plain(line: str) -> str:
    """A label without comment marks and TeX."""
    line = re.sub(r"\\(AA|A|mathrm|text|theta)\b", lambda m: {"AA": "A", "A": "A", "theta": "theta"}.get(m[1], ""), line)
    line = re.sub(r"[$\\{}]", "", line).replace("Å", "A").replace("\u212b", "A").replace("⁻¹", "^-1").replace("−", "-")
    return re.sub(r"^(#L\s|-->|[#!;'%\"\s])+", "", line).strip()


def _label(head: Sequence[str]) -> str:
    """The line that names the columns: `#L ...`, else the last line with letters, where it begins with r, Q or 2theta and names a y."""
    named = [line for line in head if re.match(r"\s*#L\s", line)]
    words = [line for line in head if re.search("[A-Za-z]", re.sub(r"(?i)\d[ed][-+]?\d", "", line))]
    for line in reversed(named if named else words[-1:]):
        plain = _plain(line)
        if re.match(r"[rQq](?:[(_\[/]\S*)?[\s,;]+(?:[\w\[]*[(\[]|[A-Za-z]\b|/|FK|RDF|Int|Q\[)", plain) or re.match(_TWO_THETA, plain, re.IGNORECASE):
            return plain
        if re.match(r"chi_Q\s|[rQq]\s?[(\[_/]\s?(?:1/)?(?:A|nm|Ang)", plain):
            return plain
    return ""


def _unit(text: str) -> str | None:
    """ "nm" or "A" when a piece of a label says so."""
    if re.search(r"nm|nanomet", text):
        return "nm"
    return "A" if re.search(r"(?<![A-Za-z])A(?![A-Za-z])|Ang", text) else None


def _split_label(label: str) -> tuple[str, str]:
    """(piece about x, piece about y) of a label such as "r (nm)  G(r) (nm^-2)"."""
    found = re.match(r"(?:chi_Q|2[\s\-_*]*theta|[A-Za-z0-9]+)(?:[_/]\S*)?(?:\s*[(\[][^)\]]*[)\]])?(?:\s*/\s*\S+)?", label, re.IGNORECASE)
    return (found[0], label[found.end() :]) if found else (label, "")


def _axis(label: str, head: Sequence[str], layout: str, suffix: str) -> tuple[str | None, str | None, str | None]:
    """(axis, its unit, the length unit of y)."""
    if layout == "gudrun":
        return "Q", "1/A", None
    title = " ".join(_plain(line) for line in head[1:2]) if layout == "fit2d" and not label else ""
    if re.search(_TWO_THETA, title if title else _split_label(label)[0] or label[:8], re.IGNORECASE):
        return "2theta", "deg", None
    if title:
        wave = re.search(r"\b[qQ]\b|scattering vector", title)
        return ("Q", f"1/{_unit(title)}" if _unit(title) else None, None) if wave else (None, None, None)
    if label.startswith("chi_Q") or label[:1] in ("r", "R", "q", "Q"):
        left, right = _split_label(label)
        axis = "r" if left[0] in "rR" else "Q"
        unit = _unit(re.sub("^(chi_Q|[rRqQ])_?", "", left))
        return axis, (unit if axis == "r" or unit is None else f"1/{unit}"), _unit(re.sub(r"^\s*\w+\s*[(\[][^)\]]*[)\]]?", "", right, count=1))
    if layout in ("rmcprofile", "pystog") and (found := re.search(_TITLE, " ".join(head[1:2]))):
        return ("r", None, None) if found[2] == "r" else ("Q", None, None)
    known = {".gr": "r", ".fq": "Q", ".sq": "Q", ".iq": "Q"}
    return known.get(suffix), None, None


def _function(label: str, head: Sequence[str], layout: str, suffix: str, axis: str | None) -> str | None:
    """The canonical function that label, outputtype, layout or suffix name, in that order."""
    if layout == "gudrun":
        return "I" if "dcs" in suffix else ("F_keen" if _GUDRUN_SUFFIX.search(suffix) else None)
    right = re.sub(r"\s*([-*])\s*", r"\1", _split_label(label)[1]).lstrip(" ,;/\t")
    for pattern, function in _Y_LABELS:
        if right and re.match(pattern, right):
            return _LOCAL.get(layout, _LOCAL["columns"])[function] if function in ("F", "G") else function
    if layout in ("rmcprofile", "pystog") and (found := re.search(_TITLE, " ".join(head[1:2]))):
        return _LOCAL["rmcprofile"].get(found[1], found[1])
    for line in head:
        if found := re.match(r"[#\s]*outputtypes?\s*=\s*(\w\w)\s*$", line):
            return _OUTPUT.get(found[1])
    if layout.startswith("pdfget") and suffix[1:] in _OUTPUT:
        return _OUTPUT[suffix[1:]]
    return "I" if axis == "2theta" or layout == "xye" or (layout == "fit2d" and re.search("(?i)intens|counts", " ".join(head))) else None


def _radiation(head: Sequence[str], layout: str) -> str | None:
    text = "\n".join(head).lower()
    if found := re.search(r"^[#\s]*(?:mode|stype|radiation)\s*[=:]\s*(x-?ray|x|neutron|n)\b", text, re.MULTILINE):
        return "xray" if found[1].startswith("x") else "neutron"
    if layout in ("gudrun", "pdfgetn"):
        return "neutron"
    neutron, xray = "neutron" in text, re.search(r"x[\s_-]?ray", text) is not None
    if neutron == xray:
        return "xray" if layout in ("pdfgetx2", "pdfgetx3") else None
    return "neutron" if neutron else "xray"


def _values(head: Sequence[str]) -> dict:
    """The key = value pairs of any line; several on a line, in free text, "=" or ":" between."""
    text = "\n".join(head)
    value = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    found: dict = {}
    for key in ("qmin", "qmax", "qdamp", "qbroad", "wavelength", "rpoly"):
        match = re.search(rf"(?<![A-Za-z_]){key}\s*[=:]\s*{value}", text, re.IGNORECASE)
        found[key] = None if match is None else float(match[1])
    match = re.search(r"(?<![A-Za-z_])(?i:composition)[ \t]*[=:][ \t]*((?:[A-Z][a-z]?[\d.]*[ \t]*)+)(?![\w=])", text)
    found["composition"] = None if match is None else match[1].strip()
    return found
