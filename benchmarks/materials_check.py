"""The reference ensembles beside what is known: measured numbers and cells that others simulated (``../shared/data``).

Every number is a mean over the cells of a condition with the standard deviation from cell to cell behind "+-". The last column, ``order``, is the
strongest Bragg-like amplitude: a cell that crystallised stands out.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import materials_pack
import materials_reference as reference
import numpy as np

from glassjax._pytree import replace
from glassjax.analysis.bonds import bonds
from glassjax.analysis.modalities import bond_angles_by_kind
from glassjax.analysis.order import partial_coordination, warren_cowley
from glassjax.io.atoms import from_atoms

# Bonds count below these lengths, A: just outside the first peak of the pair distribution
BONDS = {
    "silicon": {("Si", "Si"): 2.85},
    "carbon": {("C", "C"): 1.85},
    "silica": {("Si", "O"): 2.2},
    "cu-zr": {("Cu", "Cu"): 3.4, ("Cu", "Zr"): 3.8, ("Zr", "Zr"): 4.3},
    "zr-ni-al": {("Zr", "Zr"): 4.3, ("Zr", "Ni"): 3.7, ("Zr", "Al"): 4.0, ("Ni", "Ni"): 3.4, ("Ni", "Al"): 3.5, ("Al", "Al"): 3.8},
}
KNOWN = {
    "silicon": "a-Si, 2.28 g/cm3 (Laaziri 1999): 3.88 neighbours. At 3.5 g/cm3 Tersoff makes a dense phase of nine neighbours that can order.",
    "carbon": "cells of the GAP below (sp3 = 4-fold). Tersoff is known to make too little sp3 at high density.",
    "silica": "glass: Si-O 1.61 A, O-Si-O 109.4, Si-O-Si 142-151 degrees, hardly a defect. Below: cells of others, 3000 atoms, near zero pressure,\n"
    "not from Munetoh's potential (they lie 0.09 eV per atom above its minimum; 300 K gives 0.04). Its melt at 5000 K has 55 to 60 % SiO4,\n"
    "at 2.20 g/cm3 as at zero pressure, and fast cooling freezes most of the defects in.",
    "cu-zr": "a negative Warren-Cowley number (WC) means that unlike neighbours are preferred, as the negative heat of mixing asks.",
    "zr-ni-al": "mixing enthalpies Zr-Ni -49, Zr-Al -44, Ni-Al -22 kJ/mol (Miedema) ask for negative WC of all unlike pairs; Zhou's alloy rule\n"
    "gives it to Zr-Ni only, so aluminium sits too much among itself.",
}


def exact(frame):
    """The glassjax structure of an ASE frame in double precision, which `from_atoms` rounds to single."""
    return replace(from_atoms(frame), positions=frame.positions, cell=np.asarray(frame.cell))


def network(frame, limits, fractions=(2, 3, 4, 5)) -> dict[str, float]:
    """Of an elemental network: shortest and mean bond, mean coordination, fractions of atoms by coordination."""
    found = bonds(exact(frame), limits)
    count = found.numbers().sum(axis=1)
    row = {"shortest": found.lengths.min(), "bond": found.lengths.mean(), "neighbours": count.mean()}
    return row | {f"{n}-fold %": 100 * np.mean(count == n) for n in fractions}


def silica(frame, limits) -> dict[str, float]:
    """Of silica: Si-O length, coordination of both, angles at both."""
    found = bonds(exact(frame), limits)
    count, (angles, kinds) = found.numbers().sum(axis=1), bond_angles_by_kind(found)
    silicon, oxygen = found.elements.index("Si"), found.elements.index("O")
    row = {"shortest": found.lengths.min(), "Si-O": found.lengths.mean(), "SiO4 %": 100 * np.mean(count[found.species == silicon] == 4)}
    row |= {"OSi2 %": 100 * np.mean(count[found.species == oxygen] == 2)}
    return row | {"O-Si-O": angles[kinds[:, 0] == silicon].mean(), "Si-O-Si": angles[kinds[:, 0] == oxygen].mean()}


def alloy(frame, limits) -> dict[str, float]:
    """Of an alloy: shortest pair, neighbours of each element, partial ones n(a-b) (b about a), Warren-Cowley parameter of each unlike pair."""
    structure = exact(frame)
    found, chemical = bonds(structure, limits), warren_cowley(structure, limits)
    count = found.numbers().sum(axis=1)
    row = {"shortest": found.lengths.min()} | {f"Z({e})": count[found.species == k].mean() for k, e in enumerate(found.elements)}
    row |= {f"n({a}-{b})": n for (a, b), n in partial_coordination(structure, limits).items()}
    return row | {f"WC {a}-{b}": chemical[a, b] for a, b in itertools.combinations(found.elements, 2)}


def order(frame, qmax: float = 4.5) -> float:
    """Largest S(Q)/n = |sum_j exp(i Q r_j)|^2 / n^2 over the wave vectors of the cell with 0 < Q < ``qmax`` (1/A), all atoms weighing the same.

    1 for a crystal of equal atoms that fits the cell; of the order of ln(vectors)/n times the height of S(Q) for a glass, here 0.02 to 0.06.
    """
    step = 2 * np.pi / frame.cell.lengths()[0]
    top = int(qmax / step)
    # powers of one phase per axis: [n, 2 top + 1]
    waves = [np.exp(1j * step * np.outer(x, np.arange(-top, top + 1))) for x in frame.positions.T]
    best = 0.0
    for column, index in enumerate(range(-top, 1)):  # -Q has the same amplitude as Q
        squares = np.abs(np.einsum("n,na,nb->ab", waves[0][:, column], waves[1], waves[2], optimize=True)) ** 2
        a = np.arange(-top, top + 1)
        length = step * np.sqrt(index**2 + a[:, None] ** 2 + a[None, :] ** 2)
        best = max(best, squares[(length > 0.5 * step) & (length < qmax)].max())
    return float(best / len(frame) ** 2)


MEASURES = {"silicon": network, "carbon": network, "silica": silica, "cu-zr": alloy, "zr-ni-al": alloy}


def line(label: str, rows: list[dict[str, float]]) -> str:
    """One row of a table: label, number of cells, mean +- deviation of each column."""
    cells = (f"{np.mean([r[k] for r in rows]):8.3f} +-{np.std([r[k] for r in rows]):6.3f}" for k in rows[0])
    return f"{label:14} {len(rows):3} " + " ".join(cells)


def others(material: str, data: Path) -> dict[str, list]:
    """Cells of the same material that others simulated: label -> frames; empty where there are none."""
    import ase.io

    if material == "carbon" and (data / "carbon" / "ac_gap_train.extxyz").exists():
        frames = ase.io.read(data / "carbon" / "ac_gap_train.extxyz", ":")
        groups = {d: [f for f in frames if abs(f.info["density_g_cm3"] - d) < 0.25] for d in reference.DENSITIES}
        return {f"GAP {d:.1f}": group for d, group in groups.items() if group}
    if material == "silica" and (data / "silica").is_dir():
        groups = {rate: sorted((data / "silica").glob(f"sio2_3000_{rate}Kps_*.extxyz")) for rate in ("100", "10", "1")}
        return {f"DM2 {rate}Kps": [ase.io.read(path) for path in paths] for rate, paths in groups.items() if paths}
    return {}


def ensembles(material: str, state: Path) -> dict[str, list]:
    """Cells by condition: those in ``state``, or the packed ones where it holds none of the material."""
    found = {c.label: reference.finished(state, c) for c in reference.conditions([material])}
    found = {label: frames for label, frames in found.items() if frames}
    return found or materials_pack.load(material)


def main(state: Path, only, data: Path) -> int:
    """Print one table per material."""
    for material in dict.fromkeys(c.material for c in reference.conditions(only)):
        print(f"\n{material}: {KNOWN[material]}")
        try:
            groups = ensembles(material, state)
        except FileNotFoundError as error:
            groups = {}
            print(error)
        header = None
        for label, frames in (groups | others(material, data)).items():
            rows = [MEASURES[material](frame, BONDS[material]) | {"order": order(frame)} for frame in frames]
            if header is None:
                header = " ".join(f"{key:>17}" for key in rows[0])
                print(f"{'condition':14} {'n':>3} {header}")
            print(line(label, rows))
    return 0
