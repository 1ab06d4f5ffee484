"""A periodic atomic structure as a pytree, and the geometry of its cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, replace, static


@frozen
class Structure:
    """One periodic structure.

    Attributes:
      positions: [n, 3] Cartesian, A.
      cell: [3, 3] lattice vectors as rows (as ASE), A.
      species: [n] int32 index into ``elements``; -1 is an empty slot.
      elements: chemical symbols (static).
    """

    positions: jax.Array
    cell: jax.Array
    species: jax.Array
    elements: tuple[str, ...] = static()

    @property
    def symbols(self) -> list[str]:
        """Chemical symbol per atom (host only)."""
        return [self.elements[i] for i in np.asarray(self.species)]


def structure(positions, cell, symbols: Sequence[str], elements: Sequence[str] | None = None) -> Structure:
    """Build and validate a `Structure`.

    Args:
      positions: [n, 3] Cartesian, A.
      cell: [3, 3] rows, A; or [3] edges of an orthorhombic cell.
      symbols: n chemical symbols.
      elements: the order of elements; by default the order of first appearance.

    Raises:
      ValueError: shapes do not fit, the cell has no volume, a symbol is not in ``elements``, or a number is not finite.
    """
    positions = np.asarray(positions, dtype=float)
    cell = np.asarray(cell, dtype=float)
    if cell.shape == (3,):
        cell = np.diag(cell)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"positions have shape {positions.shape}; needs [n, 3] in angstrom")
    if cell.shape != (3, 3) or abs(np.linalg.det(cell)) < 1e-6:
        raise ValueError(
            f"cell has shape {cell.shape} and volume {abs(np.linalg.det(cell)) if cell.shape == (3, 3) else 0}; needs three lattice vectors as rows"
        )
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise ValueError("positions or cell hold NaN or infinity; needs finite numbers")
    if len(symbols) != len(positions):
        raise ValueError(f"{len(symbols)} symbols for {len(positions)} positions; needs one each")
    order = tuple(dict.fromkeys(symbols)) if elements is None else tuple(elements)
    missing = sorted(set(symbols) - set(order))
    if missing:
        raise ValueError(f"element {', '.join(missing)} is not among {', '.join(order)}")
    species = np.array([order.index(s) for s in symbols], np.int32)
    kind = jnp.result_type(float)
    return Structure(positions=jnp.asarray(positions, kind), cell=jnp.asarray(cell, kind), species=jnp.asarray(species), elements=order)


def volume(structure: Structure) -> jax.Array:
    """Cell volume, A^3."""
    a, b, c = structure.cell
    return jnp.abs(jnp.dot(a, jnp.cross(b, c)))


def number_of_atoms(structure: Structure) -> jax.Array:
    """Number of filled slots."""
    return jnp.sum(structure.species >= 0)


def number_density(structure: Structure) -> jax.Array:
    """Atoms per A^3, N / V."""
    return number_of_atoms(structure) / volume(structure)


def fractional(positions: jax.Array, cell: jax.Array) -> jax.Array:
    """Fractional coordinates [..., 3] of Cartesian ``positions`` in the row cell."""
    return positions @ jnp.linalg.inv(cell)


def wrap(structure: Structure) -> Structure:
    """The same structure with every atom inside the cell."""
    frac = fractional(structure.positions, structure.cell)
    return replace(structure, positions=structure.positions - jnp.floor(frac) @ structure.cell)


def heights(cell) -> np.ndarray:
    """Distances between opposite faces of the cell [3], A (host)."""
    cell = np.asarray(cell, dtype=float)
    normals = np.stack([np.cross(cell[1], cell[2]), np.cross(cell[2], cell[0]), np.cross(cell[0], cell[1])])
    return abs(np.linalg.det(cell)) / np.linalg.norm(normals, axis=1)


def stack(structures: Sequence[Structure]) -> Structure:
    """One pytree with a leading replica axis from structures of equal size and elements."""
    if not structures:
        raise ValueError("no structures to stack; needs at least one")
    first = structures[0]
    for index, other in enumerate(structures):
        if other.elements != first.elements or other.positions.shape != first.positions.shape:
            raise ValueError(
                f"structure {index} has {other.positions.shape[0]} atoms of {other.elements}, structure 0 has "
                f"{first.positions.shape[0]} of {first.elements}; stack needs equal sizes and elements"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *structures)


def unstack(structures: Structure) -> list[Structure]:
    """The inverse of `stack`."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], structures) for i in range(structures.positions.shape[0])]


def random_packing(
    seed: int,
    symbols: Sequence[str],
    *,
    number_density: float | None = None,
    cell=None,
    minimum_distance: float | Mapping[tuple[str, str], float] = 0.0,
    elements: Sequence[str] | None = None,
    attempts: int = 400,
) -> Structure:
    """Random positions in a cubic (or given) cell, pushed apart until no pair is closer than ``minimum_distance``.

    Args:
      seed: integer seed (a host-side numpy generator).
      symbols: chemical symbol per atom.
      number_density: atoms per A^3; a cubic cell is made. Give this or ``cell``.
      cell: [3, 3] rows, A.
      minimum_distance: A, one number or one per pair of elements.
      elements: the order of elements.
      attempts: rounds of pushing before giving up.

    Raises:
      ValueError: the packing is impossible, with the packing fraction that was asked for.
    """
    if (number_density is None) == (cell is None):
        raise ValueError("random_packing needs exactly one of number_density and cell")
    if cell is None:
        if not number_density > 0:
            raise ValueError(f"number density is {number_density}; needs a positive number of atoms per A^3")
        cell = np.eye(3) * (len(symbols) / number_density) ** (1 / 3)
    cell = np.asarray(cell, dtype=float)
    order = tuple(dict.fromkeys(symbols)) if elements is None else tuple(elements)
    limits = pair_matrix(minimum_distance, order)[np.ix_(*([[order.index(s) for s in symbols]] * 2))]
    filling = len(symbols) * np.pi / 6 * float(np.mean(limits.diagonal() ** 3)) / abs(np.linalg.det(cell))
    if filling > 0.60:
        raise ValueError(
            f"spheres of the minimum distance would fill {filling:.0%} of the cell; a random packing needs less than 60%: "
            "lower the density or the minimum distance"
        )
    rng = np.random.default_rng(seed)
    frac = rng.uniform(size=(len(symbols), 3))
    if np.max(limits) > 0:
        frac = push_apart(frac, cell, limits, attempts, rng)
    return structure(frac @ cell, cell, symbols, order)


SETTLE = 50  # rounds of pushing with kicks of all atoms


def push_apart(frac, cell, limits, attempts: int, rng: np.random.Generator) -> np.ndarray:
    """Fractional positions [n, 3] in [0, 1) moved until no pair is closer than its limit, images included; what `random_packing` ends with.

    Each round pairs that are too close move apart along their connection, with small random kicks. An atom and its own image are no pair; only the
    nearest images of each direction are looked at.

    Args:
      frac: [n, 3] fractional positions.
      cell: [3, 3] rows, A.
      limits: [n, n] smallest distance of each pair of atoms, A.
      attempts: rounds before giving up.
      rng: of the kicks.

    Raises:
      ValueError: pairs are still too close after ``attempts`` rounds.
    """
    from scipy.spatial import cKDTree

    inverse = np.linalg.inv(cell)
    reach = float(limits.max())
    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij")).reshape(3, -1).T
    worst = 0.0
    for attempt in range(attempts):
        frac = frac % 1.0
        home = frac @ cell
        images = (frac[None] + shifts[:, None]).reshape(-1, 3) @ cell
        owner = np.tile(np.arange(len(frac)), len(shifts))
        pairs = cKDTree(home).sparse_distance_matrix(cKDTree(images), reach, output_type="coo_matrix")
        i, image, distance = pairs.row, pairs.col, pairs.data
        keep = (owner[image] != i) & (distance < limits[i, owner[image]])
        if not keep.any():
            return frac
        i, image, distance = i[keep], image[keep], distance[keep]
        worst = float(distance.min())
        separation = home[i] - images[image]
        # a little farther than asked, so that the kicks of this round do not undo it
        push = 0.5 * (1.05 * limits[i, owner[image]] + 0.05 - distance)[:, None] * separation / np.maximum(distance, 1e-6)[:, None]
        moved = np.zeros_like(home)
        np.add.at(moved, i, push)
        kick = rng.normal(scale=0.02, size=moved.shape)
        if attempt >= SETTLE:  # in a large cell, kicks of all atoms make new contacts at every round
            kick[np.bincount(i, minlength=len(frac)) == 0] = 0.0
        frac = frac + (moved + kick) @ inverse
    raise ValueError(
        f"no packing found: the closest pair stays at {worst:.2f} A where {reach:.2f} A is asked for; lower the density or the minimum distance"
    )


def pair_matrix(values: float | Mapping[tuple[str, str], float], elements: Sequence[str], default: float = 0.0) -> np.ndarray:
    """Symmetric matrix [e, e] from one number or a mapping of element pairs; unknown elements raise ``ValueError``."""
    matrix = np.full((len(elements),) * 2, default)
    if not isinstance(values, Mapping):
        matrix[:] = float(values)
        return matrix
    for (a, b), value in values.items():
        if a not in elements or b not in elements:
            raise ValueError(f"pair {a}-{b} names an element that is not among {', '.join(elements)}")
        matrix[elements.index(a), elements.index(b)] = matrix[elements.index(b), elements.index(a)] = float(value)
    return matrix
