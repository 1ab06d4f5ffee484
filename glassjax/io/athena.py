"""Records of an Athena project file (`.prj`), both generations: Perl text (Data::Dumper statements) and JSON (from 0.9.26), gzipped or not.

The layouts are described in Demeter's documentation (B. Ravel, doc/misc/json_project.org) and by what Athena writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["AthenaRecord", "choose_record", "is_athena", "read_athena"]

_MARK = "Athena project file"
_STATEMENT = re.compile(r"^(?:(\[record\])|[@$%](\w+)\s*=\s*)", re.MULTILINE)
_TOKEN = re.compile(r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<mark>[()\[\]{};,]|=>)|(?P<word>[^\s,;()\[\]{}'"=]+))""", re.DOTALL)
_OTHER = {
    "is_bkg": "a background",
    "is_diff": "a difference spectrum",
    "is_pixel": "a spectrum against pixels",
    "is_rsp": "chi(R)",
    "is_qsp": "chi(q)",
}
_NULL = "@&^^null^^&@"


@dataclass(frozen=True)
class AthenaRecord:
    """One group of a project. key: Athena's short name; label: what the list in Athena shows; x, y: [m], energy in eV (as measured, before
    bkg_eshift) and mu, or k in 1/A and chi; arguments: {name: value as written}, such as bkg_e0 or fft_kmin."""

    key: str
    label: str
    x: np.ndarray
    y: np.ndarray
    arguments: Mapping[str, object]

    def number(self, *names: str) -> float | None:
        """The first of the named arguments that holds a number, or None."""
        for name in names:
            try:
                return float(self.arguments[name])
            except (KeyError, TypeError, ValueError):
                continue
        return None

    def word(self, *names: str) -> str | None:
        """The first of the named arguments that holds a word, or None."""
        found = (str(self.arguments.get(name, "")).strip() for name in names)
        return next((text for text in found if text and text.lower() != "none" and text != _NULL), None)

    def flag(self, name: str) -> bool:
        """Whether the named argument is there and true as Athena writes it ("1", 1, "n"; false: "", "0", 0, "no")."""
        return str(self.arguments.get(name, "")).strip().lower() not in ("", "0", "0.0", "no", "none", "false")

    @property
    def kind(self) -> str:
        """ "mu", "normalised" or "chi". Raises ValueError for a record that holds none of them."""
        for name, what in _OTHER.items():
            if self.flag(name):
                raise ValueError(f"got {what} in group {self.label!r}; needs mu(E), normalised mu(E) or chi(k); name another group")
        if self.flag("is_chi") or self.arguments.get("datatype") == "chi":
            return "chi"
        computed = self.flag("is_xmudat") or self.arguments.get("datatype") == "xmudat"  # FEFF's mu is normalised
        return "normalised" if computed or self.flag("is_nor") else "mu"


def is_athena(text: str) -> bool:
    """Whether the text of a file is an Athena project: one of its first lines says so."""
    return _MARK in "\n".join(text[:2000].split("\n", 6)[:6])


def read_athena(text: str, path: Path) -> list[AthenaRecord]:
    """All records of a project, in its order. Raises ValueError for a damaged file, a record without data, or a file without records."""
    raw = _from_json(text, path) if text.lstrip().startswith("{") else _from_perl(text, path)
    records = []
    for key, content in raw:
        arguments = content.get("args", {})
        label = str(arguments.get("label", key)).strip()
        try:
            x, y = (np.array([float(value) for value in content[name]]) for name in ("x", "y"))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: got group {label!r} without numbers x and y; needs both; save the project again in Athena") from None
        if len(x) != len(y):
            raise ValueError(f"{path}: got {len(x)} x and {len(y)} y in group {label!r}; needs as many; save the project again in Athena")
        records.append(AthenaRecord(key, label, x, y, arguments))
    if not records:
        raise ValueError(f"{path}: got an Athena project without groups; needs at least one; save the project again in Athena")
    return records


def choose_record(records: list[AthenaRecord], group: str | None, path: Path) -> AthenaRecord:
    """The record whose label or key is `group`; without one, the only record. Raises ValueError, naming what there is."""
    names = ", ".join(repr(record.label) for record in records)
    if group is None:
        if len(records) > 1:
            raise ValueError(f"{path}: got {len(records)} groups ({names}); needs one; pass group= one of these labels")
        return records[0]
    found = [record for record in records if record.label == group] or [record for record in records if record.key == group]
    if not found:
        raise ValueError(f"{path}: got group={group!r}; needs one of {names}; correct group")
    if len(found) > 1:
        keys = ", ".join(repr(record.key) for record in found)
        raise ValueError(f"{path}: got {len(found)} groups with the label {group!r}; needs one; pass group= one of their keys, {keys}")
    return found[0]


def _from_json(text: str, path: Path) -> list[tuple[str, dict]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: got JSON that ends or breaks at line {error.lineno}; needs a whole project; save it again in Athena") from error
    order = content.get("_____order", [])
    groups = {key: value for key, value in content.items() if isinstance(value, dict) and not key.startswith("_____")}
    return [(key, groups[key]) for key in [*(key for key in order if key in groups), *(key for key in groups if key not in order)]]


def _from_perl(text: str, path: Path) -> list[tuple[str, dict]]:
    found, current, position = [], {}, 0
    while statement := _STATEMENT.search(text, position):
        position = statement.end()
        if statement[1]:
            key = current.pop("old_group", ["unnamed"])
            found.append((str(key[0]), current))
            current = {}
            continue
        values, position = _perl_values(text, position, path)
        if statement[2] == "args":
            values = dict(zip(values[::2], values[1::2], strict=False))
        if statement[2] in ("args", "x", "y", "old_group"):
            current[statement[2]] = values
    if current:
        raise ValueError(f"{path}: got an Athena project that ends inside a group; needs a whole one; save it again in Athena")
    return found


def _perl_values(text: str, position: int, path: Path) -> tuple[list, int]:
    """The values of one Perl statement, nested lists as lists, and where it ends. The outermost brackets are dropped."""
    stack = [[]]
    while token := _TOKEN.match(text, position):
        position = token.end()
        mark = token["mark"]
        if mark == ";" and len(stack) == 1:
            values = stack[0]
            return (values[0] if len(values) == 1 and isinstance(values[0], list) else values), position
        if mark and mark in "([{":
            stack.append([])
        elif mark and mark in ")]}" and len(stack) > 1:
            closed = stack.pop()
            stack[-1].append(closed)
        elif token["text"] is not None:
            stack[-1].append(_unquote(token["text"]))
        elif token["word"] is not None:
            stack[-1].append(None if token["word"] == "undef" else token["word"])
    line = text.count("\n", 0, position) + 1
    raise ValueError(f"{path}, line {line}: got an Athena project that breaks off here; needs a whole one; save it again in Athena")


def _unquote(token: str) -> str:
    """The text of a Perl string, with \\x{263a} and backslash escapes resolved."""
    body = re.sub(r"\\x\{([0-9a-fA-F]+)\}", lambda found: chr(int(found[1], 16)), token[1:-1])
    return re.sub(r"\\(.)", r"\1", body, flags=re.DOTALL)
