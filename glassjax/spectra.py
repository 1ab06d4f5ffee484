"""All curves of all structures: one compiled program per size of structure, one pair pass per structure, batched over frames."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from glassjax._pytree import replace
from glassjax.neighbors import build, grow, neighbor_spec
from glassjax.observables import histogram
from glassjax.observables.pair import PairObservable
from glassjax.structure import Structure, stack


def compute_spectra(structures: Sequence[Structure], observables: Sequence) -> list[np.ndarray]:
    """Curves [structures, m] of every observable.

    Structures of one size are stacked and run through one compiled `jax.lax.map`; neighbour lists are grown until everything fits. All pair
    observables share one pair pass per structure.

    Args:
      structures: any number, of any sizes, with the elements of the observables in the same order.
      observables: from `pair_distribution`, `structure_factor`, `angle_distribution`, ...

    Raises:
      ValueError: nothing to compute, or positions that are not finite.
    """
    if not structures or not observables:
        raise ValueError(f"got {len(structures)} structures and {len(observables)} observables; needs at least one of each")
    if not all(np.isfinite(np.asarray(s.positions)).all() for s in structures):
        raise ValueError("got positions that are NaN or infinite; needs finite positions; leave those structures out")
    results: list[list] = [[None] * len(structures) for _ in observables]
    groups: dict = {}
    for index, one in enumerate(structures):
        groups.setdefault((one.positions.shape, one.elements), []).append(index)
    for members in groups.values():
        curves = _batch([structures[i] for i in members], observables)
        for row, own in zip(results, curves, strict=True):
            for place, index in enumerate(members):
                row[index] = own[place]
    return [np.stack(row) for row in results]


def _batch(frames, observables) -> list[np.ndarray]:
    """Curves [frames, m] of frames of one size."""
    smallest = min(frames, key=lambda s: float(np.abs(np.linalg.det(np.asarray(s.cell)))))
    pairs = [o for o in observables if isinstance(o, PairObservable)]
    reaches = ([max(o.rmax for o in pairs)] if pairs else []) + [o.rmax for o in observables if not isinstance(o, PairObservable)]
    # one list serves frames of different cells: the images of every cell, the capacity of the densest
    specs = [_common(frames, smallest, reach) for reach in reaches]
    others = [o for o in observables if not isinstance(o, PairObservable)]
    for place, one in enumerate(others, start=len(specs) - len(others)):
        specs[place] = replace(specs[place], edges=max(one.fit(s).spec.edges for s in frames))  # slots of its own, such as triangles
    batch = stack(frames)
    while True:
        curves, needed = _evaluate(tuple(observables), batch, tuple(specs))
        larger = [grow(spec, np.asarray(n)) for spec, n in zip(specs, needed, strict=True)]
        if larger == specs:
            return [np.asarray(c) for c in curves]
        specs = larger


def _common(frames, smallest, reach):
    dense = [neighbor_spec(s, reach, cell_list=None) for s in frames]
    if len(set(dense)) == 1:
        return dense[0]
    spec = neighbor_spec(smallest, reach, cell_list=False)
    shifts = tuple(dict.fromkeys(shift for s in frames for shift in neighbor_spec(s, reach, cell_list=False).shifts))
    capacity = max(d.capacity for d in dense)
    return type(spec)(cutoff=spec.cutoff, capacity=capacity, edges=max(d.edges for d in dense), shifts=shifts)


def _one(observables, structure, specs):
    """Every curve of one structure and what the neighbour lists needed."""
    curves, needed, specs = [], [], list(specs)
    pairs = [o for o in observables if isinstance(o, PairObservable)]
    if pairs:
        counts, listed = histogram.pair_histogram(structure, specs.pop(0), max(o.points for o in pairs))
        needed.append(listed)
    for one in observables:
        if isinstance(one, PairObservable):
            curves.append(one.from_histogram(structure, counts))
            continue
        spec = specs.pop(0)
        graph = build(structure, spec)
        needed.append(one.needed(structure, graph))
        curves.append(replace(one, spec=spec)(structure))
    return curves, needed


def _mapped(observables, batch, specs):
    return jax.lax.map(lambda structure: _one(observables, structure, specs), batch)


_evaluate = jax.jit(_mapped, static_argnums=2)
