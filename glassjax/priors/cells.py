"""Training cells: one padded batch of them, one neighbour list that serves all, their shortest distances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glassjax.neighbors import NeighborSpec, build, neighbor_spec
from glassjax.structure import Structure


def pad(structures: Sequence[Structure], elements: tuple[str, ...]) -> Structure:
    """One batch of structures of any sizes: empty slots get species -1. Raises ``ValueError`` for elements not in ``elements``."""
    most = max(s.positions.shape[0] for s in structures)
    padded = []
    for s in structures:
        missing = set(s.elements) - set(elements)
        if missing:
            raise ValueError(f"got structures of {', '.join(sorted(missing))}; needs elements of the prior: {', '.join(elements)}")
        extra = most - s.positions.shape[0]
        order = np.array([elements.index(e) for e in s.elements], np.int32)
        species = np.concatenate([order[np.asarray(s.species)], np.full(extra, -1, np.int32)])
        positions = np.concatenate([np.asarray(s.positions), np.zeros((extra, 3), np.float32)])
        padded.append(Structure(positions=jnp.asarray(positions), cell=s.cell, species=jnp.asarray(species), elements=elements))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)


def training_spec(structures: Sequence[Structure], cutoff: float) -> NeighborSpec:
    """One `NeighborSpec` out to ``cutoff`` (A) that serves every training cell: the union of their images and the largest capacities."""
    specs = [neighbor_spec(s, cutoff, cell_list=False) for s in structures]
    shifts = max((s.shifts for s in specs), key=len)
    if not all(set(s.shifts) <= set(shifts) for s in specs):
        shifts = tuple(dict.fromkeys(shift for s in specs for shift in s.shifts))
    capacity = max(s.capacity for s in specs)
    return dataclasses.replace(specs[0], capacity=capacity, edges=max(s.edges for s in specs), shifts=shifts)


def shortest_distances(structures: Sequence[Structure], reach: float = 4.0, typical: bool = False) -> dict[str, float]:
    """Shortest distance of each pair of elements, "A-B", over all structures, A; pairs farther apart than ``reach`` (A) are left out.

    ``typical`` gives the median over the structures of each one's shortest instead: a defect that one cell in many has, such as a peroxide bond in
    silica, does not change it.
    """
    found: dict[str, list[float]] = {}
    for one in structures:
        graph = jax.jit(build, static_argnums=1)(one, neighbor_spec(one, reach, margin=12.0))
        distances, species = np.where(graph.mask, graph.distances, np.inf), np.asarray(one.species)
        for i, a in enumerate(one.elements):
            for j, b in enumerate(one.elements[i:], start=i):
                wanted = (species[:, None] == i) & (species[np.asarray(graph.neighbors)] == j)
                value = float(distances[wanted].min(initial=np.inf))
                if value < reach:
                    found.setdefault(f"{a}-{b}", []).append(value)
    return {pair: round(float(np.median(values) if typical else min(values)), 3) for pair, values in found.items()}
