"""Structures in and out through ASE, and RMCProfile's .rmc6f; ASE is imported when a function is called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..structure import Structure, structure

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["from_atoms", "read_rmc6f", "read_structures", "to_atoms"]


def from_atoms(atoms: Atoms, elements: Sequence[str] | None = None) -> Structure:
    """The Structure of an ASE Atoms: positions [n, 3] and cell [3, 3] (rows) in A.

    elements: the order of elements; by default that of first appearance. Raises ValueError without atoms, for a cell that is not
    periodic in all three directions or has no volume, for numbers that are not finite, or an element that is not in `elements`.
    """
    if len(atoms) == 0:
        raise ValueError("got no atoms; needs at least one; check the file or the selection")
    if not np.all(atoms.pbc):
        raise ValueError(f"got a cell with periodicity {[bool(p) for p in atoms.pbc]}; needs all three directions periodic; set atoms.pbc = True")
    cell = np.asarray(atoms.cell, dtype=float)
    volume = abs(np.linalg.det(cell)) if np.isfinite(cell).all() else np.nan
    if not volume > 1e-6:
        raise ValueError(f"got a cell of volume {volume:g} A^3; needs three independent lattice vectors; set atoms.cell")
    if not np.isfinite(atoms.positions).all():
        raise ValueError("got NaN or infinite positions; needs finite positions; repair or leave out that frame")
    symbols = atoms.get_chemical_symbols()
    if "X" in symbols:
        raise ValueError("got atoms without an element (X); needs chemical elements; give the file a map from types to elements")
    missing = [] if elements is None else [symbol for symbol in dict.fromkeys(symbols) if symbol not in elements]
    if missing:
        raise ValueError(f"got element {', '.join(missing)}; needs elements among {', '.join(elements)}; leave that structure out or add the element")
    return structure(atoms.positions, cell, symbols, elements)


def to_atoms(structure: Structure, info: Mapping | None = None) -> Atoms:
    """The ASE Atoms (periodic) of one Structure, empty slots (species -1) left out; `info` is copied to atoms.info."""
    from ase import Atoms

    species, positions = np.asarray(structure.species), np.asarray(structure.positions, dtype=float)
    if species.ndim != 1:
        raise ValueError(f"got a batch with species of shape {species.shape}; needs one structure, shape [n]; unstack it first")
    filled = species >= 0
    symbols = [structure.elements[i] for i in species[filled]]
    atoms = Atoms(symbols, positions=positions[filled], cell=np.asarray(structure.cell, dtype=float), pbc=True)
    if info is not None:
        atoms.info.update(info)
    return atoms


def read_structures(
    paths: str | Path | Sequence[str | Path], elements: Sequence[str] | None = None, *, types: Mapping[int, str] | None = None
) -> list[Structure]:
    """Every frame of one or several structure files (all that ase.io reads, and .rmc6f), in order, all with the same elements.

    elements: their order; by default that of first appearance over all frames. types: {type: element} for LAMMPS data files; by default
    from the file: comments or masses in its Masses section, Atom Type Labels, or element symbols as the comment on its first line.
    Raises FileNotFoundError, or ValueError naming the file and frame for what cannot be read and for what `from_atoms` refuses.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise ValueError("got no file; needs at least one structure file; name one")
    frames = [(f"{path}, frame {index}", atoms) for path in map(Path, paths) for index, atoms in enumerate(_read_frames(path, types))]
    if elements is None:
        elements = tuple(dict.fromkeys(symbol for _, atoms in frames for symbol in atoms.get_chemical_symbols()))
    structures = []
    for where, atoms in frames:
        try:
            structures.append(from_atoms(atoms, elements))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return structures


def read_rmc6f(path: str | Path) -> Atoms:
    """The ASE Atoms (periodic) of an RMCProfile version 6 configuration (.rmc6f).

    The cell comes from "Lattice vectors (Ang)", or from "Cell (Ang/deg)" without them; atom lines are `index El [n] x y z ...`, fractional,
    with or without `[n]`. Raises FileNotFoundError, or ValueError naming the file and line for what is missing or cannot be read.
    """
    from ase import Atoms
    from ase.cell import Cell
    from ase.data import chemical_symbols

    path = _existing(Path(path))
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    places = {key: i for i, line in enumerate(lines) for key in ("Lattice vectors", "Cell (Ang/deg)", "Number of atoms:", "Atoms (") if key in line}
    if "Atoms (" not in places or not {"Lattice vectors", "Cell (Ang/deg)"} & places.keys():
        raise ValueError(f"{path}: got no atoms or no cell; needs the lines 'Lattice vectors (Ang):' and 'Atoms (fractional coordinates):'; check it")
    try:
        if "Lattice vectors" in places:
            first = places["Lattice vectors"] + 1
            cell = np.array([[float(word) for word in line.split()] for line in lines[first : first + 3]]).reshape(3, 3)
        else:
            cell = Cell.fromcellpar([float(word) for word in lines[places["Cell (Ang/deg)"]].split(":")[1].split()])
    except ValueError as error:
        raise ValueError(f"{path}: got a cell that cannot be read ({error}); needs 3 rows of 3 numbers in A; correct it") from error
    symbols, fractional = [], []
    for number, line in enumerate(lines[places["Atoms ("] + 1 :], start=places["Atoms ("] + 2):
        if not line.strip():
            continue
        row = re.match(r"\s*\d+\s+([A-Za-z]+)\d*\s+(?:\[\s*\d+\s*\]\s+)?(\S+)\s+(\S+)\s+(\S+)(?:\s|$)", line)
        if row is None or row[1].capitalize() not in chemical_symbols:
            raise ValueError(f"{path}, line {number}: got {line.strip()[:60]!r}; needs `index El [n] x y z`, El a chemical symbol; correct that line")
        symbols.append(row[1].capitalize())
        fractional.append(_fractions(row.groups()[1:], path, number))
    declared = re.search(r":\s*(\d+)", lines[places["Number of atoms:"]]) if "Number of atoms:" in places else None
    if not symbols or (declared is not None and int(declared[1]) != len(symbols)):
        said = "at least one" if declared is None else declared[1]
        raise ValueError(f"{path}: got {len(symbols)} atoms; needs {said}, as its header says; check that the file is complete")
    return Atoms(symbols, scaled_positions=fractional, cell=cell, pbc=True)


def _fractions(words: Sequence[str], path: Path, number: int) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: got coordinates {' '.join(words)}; needs three numbers; correct that line") from error


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path}: got no such file; needs a structure file (extxyz, POSCAR, CIF, ...); check the path")
    if path.is_dir():
        raise ValueError(f"{path}: got a directory; needs a structure file (extxyz, POSCAR, CIF, ...); name the file inside it")
    return path


def _lammps_elements(text: str, path: Path) -> dict[int, str]:
    """{type: element} of a LAMMPS data file from its Masses section, Atom Type Labels, or first line."""
    from ase.data import atomic_masses, chemical_symbols

    count = re.search(r"^\s*(\d+)\s+atom types", text, re.MULTILINE)
    found: dict[int, str] = {}
    for name, row in (("Atom Type Labels", r"()([A-Z][a-z]?)\d*\s*$"), ("Masses", r"([\d.eE+-]+)\s*(?:#\s*([A-Z][a-z]?)\b.*)?$")):
        section = re.search(rf"^\s*{name}.*\n\s*\n((?:\s*\d+\s.*(?:\n|$))+)", text, re.MULTILINE)
        for line in section[1].splitlines() if section else ():
            parts = re.match(rf"\s*(\d+)\s+{row}", line)
            if parts is None:
                continue
            symbol = parts[3]
            if symbol is None:
                nearest = int(np.argmin(np.abs(atomic_masses[1:] - float(parts[2])))) + 1
                symbol = chemical_symbols[nearest] if abs(atomic_masses[nearest] / float(parts[2]) - 1) < 0.0015 else None
            if symbol in chemical_symbols:
                found.setdefault(int(parts[1]), symbol)
    words = text.partition("\n")[0].strip(" #\r").split()
    if count and not found and len(words) == int(count[1]) and all(word in chemical_symbols for word in words):
        found = dict(enumerate(words, start=1))
    wanted = range(1, int(count[1]) + 1) if count else ()
    if missing := [kind for kind in wanted if kind not in found]:
        example = "{" + ", ".join(f'{kind}: "Si"' for kind in missing) + "}"
        raise ValueError(
            f"{path}: got LAMMPS atom types {missing} without an element; needs a map from types to elements; pass types={example}, or write "
            "`# Si` after each mass in its Masses section"
        )
    return found


def _read_frames(path: Path, types: Mapping[int, str] | None = None) -> list[Atoms]:
    from ase.data import atomic_numbers
    from ase.io import read

    if _existing(path).suffix.lower() == ".rmc6f":
        return [read_rmc6f(path)]
    options = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(5000)
    if re.search(r"^\s*\d+\s+atoms\b", start, re.MULTILINE) and re.search(r"\bxlo\s+xhi\b", start):
        elements = _lammps_elements(path.read_text(encoding="utf-8", errors="replace"), path) if types is None else types
        unknown = [symbol for symbol in elements.values() if symbol not in atomic_numbers]
        if unknown:
            raise ValueError(f'{path}: got types={dict(elements)}; needs chemical symbols; correct {unknown}, as types={{1: "Si"}}')
        options = dict(format="lammps-data", Z_of_type={int(kind): atomic_numbers[symbol] for kind, symbol in elements.items()})
    try:
        frames = read(path, index=":", **options)
    except Exception as error:  # ase.io's readers raise whatever their parser meets
        raise ValueError(f"{path}: got a file that ASE cannot read ({error}); needs extxyz, POSCAR, CIF, ...; convert or repair it") from error
    if not frames:
        raise ValueError(f"{path}: got no frame; needs at least one structure; check that the file is complete")
    return frames
