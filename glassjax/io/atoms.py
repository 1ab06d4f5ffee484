"""Structures in and out through ASE; ASE is imported when a function is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..structure import Structure, structure

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["from_atoms", "read_structures", "to_atoms"]


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


def read_structures(paths: str | Path | Sequence[str | Path], elements: Sequence[str] | None = None) -> list[Structure]:
    """Every frame of one or several structure files, in any format that ase.io reads, in order, all with the same elements.

    elements: their order; by default that of first appearance over all frames. Raises FileNotFoundError, or ValueError naming the
    file and frame for what ASE cannot read and for what `from_atoms` refuses.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise ValueError("got no file; needs at least one structure file; name one")
    frames = [(f"{path}, frame {index}", atoms) for path in map(Path, paths) for index, atoms in enumerate(_read_frames(path))]
    if elements is None:
        elements = tuple(dict.fromkeys(symbol for _, atoms in frames for symbol in atoms.get_chemical_symbols()))
    structures = []
    for where, atoms in frames:
        try:
            structures.append(from_atoms(atoms, elements))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return structures


def _read_frames(path: Path) -> list[Atoms]:
    from ase.io import read

    if not path.exists():
        raise FileNotFoundError(f"{path}: got no such file; needs a structure file (extxyz, POSCAR, CIF, ...); check the path")
    if path.is_dir():
        raise ValueError(f"{path}: got a directory; needs a structure file (extxyz, POSCAR, CIF, ...); name the file inside it")
    try:
        frames = read(path, index=":")
    except Exception as error:  # ase.io's readers raise whatever their parser meets
        raise ValueError(f"{path}: got a file that ASE cannot read ({error}); needs extxyz, POSCAR, CIF, ...; convert or repair it") from error
    if not frames:
        raise ValueError(f"{path}: got no frame; needs at least one structure; check that the file is complete")
    return frames
