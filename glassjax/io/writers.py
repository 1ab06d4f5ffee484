"""Structures and curves to files, each written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..structure import Structure
from .atoms import to_atoms

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["write_columns", "write_structures"]

_SUFFIXES = {".extxyz": "extxyz", ".xyz": "extxyz", ".cif": "cif", ".data": "lammps-data", ".lmp": "lammps-data", ".rmc6f": "rmc6f"}
_FORMATS = tuple(dict.fromkeys(_SUFFIXES.values()))


def write_structures(path, structures: Atoms | Structure | Sequence[Atoms | Structure], format: str | None = None) -> list[Path]:
    """Write one or several structures; returns the files written.

    structures: ASE Atoms or Structure, one or a sequence. format: "extxyz" (all in one file), "cif", "lammps-data" or "rmc6f" (one file
    per structure: name.cif for one, name_0001.cif, name_0002.cif, ... for several); by default that of the suffix: .extxyz, .xyz, .cif,
    .data, .lmp, .rmc6f. LAMMPS data (atom_style atomic, units metal): the cell is turned into LAMMPS's lower triangular one, types are
    numbered in the order of first appearance, over all structures, and named in a comment on the first line ("# Si O") and in Masses.

    Raises ValueError for no structure, an unknown suffix, or a structure that is not periodic or has no volume (cif, lammps-data, rmc6f).
    """
    path = Path(path)
    frames = _frames(structures)
    if format is None and path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: got suffix {path.suffix!r}; needs one of {', '.join(_SUFFIXES)}; rename the file or pass format")
    format = _SUFFIXES[path.suffix.lower()] if format is None else format
    if format not in _FORMATS:
        raise ValueError(f"{path}: got format={format!r}; needs one of {', '.join(_FORMATS)}; pass one of them")
    if format == "extxyz":
        return _commit([(path, lambda part: _ase_write(part, frames, format="extxyz"))])
    for index, atoms in enumerate(frames):
        if not (np.all(atoms.pbc) and abs(np.linalg.det(np.asarray(atoms.cell))) > 1e-6):
            raise ValueError(f"{path}, structure {index}: got no periodic cell; needs one for {format}; set atoms.cell and pbc, or write extxyz")
    elements = list(dict.fromkeys(symbol for atoms in frames for symbol in atoms.get_chemical_symbols()))
    names = [path] if len(frames) == 1 else [path.with_name(f"{path.stem}_{i:04d}{path.suffix}") for i in range(1, len(frames) + 1)]
    return _commit([(name, lambda part, atoms=atoms: _write_one(part, atoms, format, elements)) for name, atoms in zip(names, frames, strict=True)])


def write_columns(path, columns: Mapping[str, np.ndarray], *, header: Sequence[str]) -> Path:
    """Write curves as plain columns: `# ` lines of `header`, then `# ` and the names of the columns, then a row per point (9 digits).

    columns: {name: [m]}, names without blanks, such as "Q(1/A)"; header: lines that state function and units. Returns the path.
    Raises ValueError without columns, for lengths that differ, a name with blanks, or a header line with a line end.
    """
    arrays = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if not arrays or any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        raise ValueError(f"{path}: got columns of shapes {shapes}; needs one or more arrays of one length; cut or interpolate them to one axis")
    if any(not name or name.split() != [name] for name in arrays):
        raise ValueError(f"{path}: got column names {list(arrays)}; needs names without blanks; write Q(1/A) for Q (1/A)")
    if isinstance(header, str) or any(len(line.splitlines()) > 1 for line in header):
        raise ValueError(f"{path}: got header {header!r}; needs a sequence of single lines; split it")
    lines = [f"# {line}" for line in header] + ["# " + "  ".join(arrays)]
    lines += [" ".join(f"{value: .8e}" for value in row) for row in zip(*arrays.values(), strict=True)]
    return _commit([(Path(path), lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))])[0]


def _frames(structures) -> list[Atoms]:
    from ase import Atoms

    if isinstance(structures, Atoms | Structure):
        structures = [structures]
    frames = []
    for index, item in enumerate(structures):
        if not isinstance(item, Atoms | Structure):
            raise ValueError(f"got a {type(item).__name__} as structure {index}; needs ASE Atoms or Structure; convert it")
        frames.append(to_atoms(item) if isinstance(item, Structure) else item)
        if len(frames[-1]) == 0:
            raise ValueError(f"got no atoms in structure {index}; needs at least one; leave that structure out")
    if not frames:
        raise ValueError("got no structure; needs at least one; pass Atoms or Structure")
    return frames


def _commit(jobs: Sequence[tuple[Path, Callable[[Path], object]]]) -> list[Path]:
    """Write every file under another name beside its own, then rename all; on a failure nothing is left and nothing is overwritten."""
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path, _ in jobs]
    try:
        for part, (_, write) in zip(parts, jobs, strict=True):
            write(part)
        for part, (path, _) in zip(parts, jobs, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return [path for path, _ in jobs]


def _ase_write(part: Path, frames, **options) -> None:
    from ase.io import write

    write(part, frames, **options)


def _write_one(part: Path, atoms: Atoms, format: str, elements: Sequence[str]) -> None:
    if format == "cif":
        _ase_write(part, atoms, format="cif")
    elif format == "rmc6f":
        part.write_text(_rmc6f(atoms), encoding="utf-8")
    else:
        _ase_write(part, atoms, format="lammps-data", specorder=list(elements), masses=True, atom_style="atomic", units="metal")
        _, _, rest = part.read_text(encoding="utf-8").partition("\n")
        part.write_text(f"# {' '.join(elements)}\n{rest}", encoding="utf-8")


def _rmc6f(atoms: Atoms) -> str:
    """The text of an RMCProfile version 6 configuration: one supercell, reference numbers in the order of the atoms."""
    symbols = atoms.get_chemical_symbols()
    types = list(dict.fromkeys(symbols))
    counters = dict.fromkeys(types, 0)
    lines = [
        "(Version 6f format configuration file)",
        "Metadata owner: glassjax",
        f"Metadata material: {atoms.get_chemical_formula(mode='reduce')}",
        f"Number of types of atoms:   {len(types)}",
        f"Atom types present:         {' '.join(types)}",
        f"Number of each atom type:   {' '.join(str(symbols.count(symbol)) for symbol in types)}",
        "Number of moves generated:           0",
        "Number of moves tried:               0",
        "Number of moves accepted:            0",
        "Number of prior configuration saves: 0",
        f"Number of atoms:                     {len(atoms)}",
        f"Number density (Ang^-3):             {len(atoms) / atoms.get_volume():.10f}",
        "Supercell dimensions:                1 1 1",
        "Cell (Ang/deg): " + " ".join(f"{value:.8f}" for value in atoms.cell.cellpar()),
        "Lattice vectors (Ang):",
        *(" ".join(f"{value: .10f}" for value in row) for row in np.asarray(atoms.cell)),
        "Atoms (fractional coordinates):",
    ]
    order = sorted(range(len(atoms)), key=lambda i: types.index(symbols[i]))  # RMCProfile wants the atoms of one type together
    fractional = atoms.get_scaled_positions()
    for index, i in enumerate(order, start=1):
        counters[symbols[i]] += 1
        x, y, z = fractional[i]
        lines.append(f"{index:6d}   {symbols[i]:<2s}  [1]  {x:.10f}  {y:.10f}  {z:.10f}  {counters[symbols[i]]:6d}   0   0   0")
    return "\n".join(lines) + "\n"
