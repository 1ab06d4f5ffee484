"""The curves that ensembles are compared by: how each is made from structures. Spectra share one pair pass; the structural ones are host lists."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from glassjax.analysis.bonds import Bonds, bonds
from glassjax.analysis.dihedral import dihedral_angles
from glassjax.analysis.order import bond_order
from glassjax.analysis.rings import CROWDED, LARGEST, LARGEST_CROWDED, LARGEST_OPEN, OPEN, SMALLEST, mean_coordination, ring_counts
from glassjax.analysis.voronoi import index_name, voronoi_indices
from glassjax.observables.exafs import exafs
from glassjax.observables.real_space import pair_distribution
from glassjax.observables.reciprocal import structure_factor
from glassjax.scattering_tables import find_table
from glassjax.structure import Structure
from glassjax.surrogates.observable import spectrum
from glassjax.surrogates.surrogate import Surrogate, load_surrogate

SPECTRAL = ("PDF", "partial PDF", "XRD", "ND", "EXAFS", "XANES")
STRUCTURAL = ("ADF", "coordination", "dihedral", "q4", "q6", "rings", "Voronoi")
MODALITIES = (*SPECTRAL, *STRUCTURAL)
R, Q, K = np.linspace(0.08, 8.0, 100), np.linspace(1.0, 11.0, 101), np.linspace(3.0, 12.0, 181)
ANGLES = np.linspace(0.0, 180.0, 91)
PAIR_WIDTH, DISPLACEMENT, REACH, ANGLE_WIDTH = 0.15, 1.5, 10.0, 0.1  # A, A^2, A, rad
COUNTS = np.arange(25.0)  # coordination numbers; more count as the last
ORDERS, ORDER_WIDTH = np.linspace(0.0, 1.0, 51), 0.02  # of the distributions of q_l


def spectral_observables(elements, fractions, density: float, modalities, surrogates) -> dict:
    """{(modality, feature): observable} of the spectral modalities among ``modalities``."""
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    intensity = dict(function="I", rmax=REACH, displacement=DISPLACEMENT)
    made = {}
    for modality in modalities:
        if modality == "PDF":
            made[modality, "total"] = pair_distribution(R, fractions, width=PAIR_WIDTH)
        elif modality == "partial PDF":
            made |= {(modality, f"{a}-{b}"): pair_distribution(R, fractions, width=PAIR_WIDTH, partial=(a, b)) for a, b in pairs}
        elif modality in ("XRD", "ND"):
            weights = "xray" if modality == "XRD" else "neutron"
            made[modality, "total"] = structure_factor(Q, fractions, weights=weights, **intensity)
        elif modality == "EXAFS":
            for e in edges_with_tables(elements):
                made[modality, f"{e}:K"] = exafs(K, fractions, edge=f"{e}:K", number_density=density, kweight=2)
        elif modality == "XANES":
            made |= {(modality, f"{one.absorber}:{one.edge}"): spectrum(one, elements=elements) for one in surrogates}
    return made


def edges_with_tables(elements) -> list[str]:
    """Elements with a shipped scattering table of their K edge in a material of ``elements``."""
    found = []
    for element in elements:
        try:
            find_table(elements, element, "K")
        except ValueError:
            continue
        found.append(element)
    return found


def loaded_surrogates(surrogate) -> list[Surrogate]:
    """Surrogates from one or several objects, names or files."""
    given = [] if surrogate is None else surrogate if isinstance(surrogate, list | tuple) else [surrogate]
    return [one if isinstance(one, Surrogate) else load_surrogate(one) for one in given]


def structural_curves(structures: list[Structure], elements, cutoffs, modality: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{feature: (x, values [replicas, points])} of one structural modality."""
    if modality == "ADF":
        return _angles(structures, elements, cutoffs)
    if modality == "coordination":
        return _coordination(structures, elements, cutoffs)
    if modality == "dihedral":
        return _dihedral(structures, elements, cutoffs)
    if modality in ("q4", "q6"):
        return _steinhardt(structures, elements, cutoffs, int(modality[1:]))
    if modality == "rings":
        most = max(mean_coordination(s, cutoffs) for s in structures)
        largest = LARGEST_CROWDED if most > CROWDED else LARGEST_OPEN if most < OPEN else LARGEST
        values = np.stack([ring_counts(s, cutoffs, largest) for s in structures])
        return {"total": (np.arange(SMALLEST, largest + 1.0), values[:, SMALLEST:])}
    return _voronoi(structures, elements)


def _coordination(structures, elements, cutoffs):
    numbers = [(one.species, one.numbers()) for one in (bonds(s, cutoffs) for s in structures)]

    def share(counts):
        return np.bincount(np.minimum(counts, len(COUNTS) - 1), minlength=len(COUNTS)) / max(1, len(counts))

    found = {"total": (COUNTS, np.stack([share(n.sum(axis=1)) for _, n in numbers]))}
    if len(elements) > 1:
        for (a, first), (b, second) in itertools.product(enumerate(elements), repeat=2):
            if cutoffs.get((first, second), cutoffs.get((second, first), 0.0)) > 0:  # others never bond
                found[f"{first}-{second}"] = (COUNTS, np.stack([share(n[species == a, b]) for species, n in numbers]))
    return found


def smeared(values, points, end: float, width: float) -> np.ndarray:
    """Density of ``values`` at ``points`` [m], each value spread by a Gaussian of ``width`` mirrored at 0 and ``end``; zeros without any value.

    Values are first shared between the two nearest nodes of a grid of width / 40, which changes the curve by less than 1e-4 of its largest value.
    """
    intervals = int(np.ceil(40 * end / width))
    place = np.clip(np.asarray(values, dtype=float) * (intervals / end), 0.0, float(intervals))
    base = np.minimum(np.floor(place).astype(int), intervals - 1)
    counts = np.bincount(base, weights=base + 1 - place, minlength=intervals + 1) + np.bincount(
        base + 1, weights=place - base, minlength=intervals + 1
    )
    kernel = _kernel(tuple(points), intervals, end, width)
    return kernel @ counts / max(1, len(place))


@functools.lru_cache(maxsize=8)
def _kernel(points, intervals: int, end: float, width: float) -> np.ndarray:
    """Mirrored Gaussians [m, intervals + 1] about the nodes."""
    x, nodes = np.array(points), np.linspace(0.0, end, intervals + 1)
    images = (nodes, -nodes, 2 * end - nodes)
    return sum(np.exp(-0.5 * ((x[:, None] - centre[None]) / width) ** 2) for centre in images) / (np.sqrt(2 * np.pi) * width)


def bond_angles_by_kind(network: Bonds) -> tuple[np.ndarray, np.ndarray]:
    """(angles [m] in degrees, elements [m, 3] as indices: centre, then the ends in order) of every pair of bonds of an atom, each once."""
    degrees = np.bincount(network.first, minlength=len(network.species))
    starts, unit = np.cumsum(degrees) - degrees, network.vectors / network.lengths[:, None]
    angles, kinds = [np.zeros(0)], [np.zeros((0, 3), int)]
    for degree in np.unique(degrees[degrees > 1]):
        atoms = np.flatnonzero(degrees == degree)
        rows = starts[atoms][:, None] + np.arange(degree)
        i, j = np.triu_indices(degree, 1)
        cosines = np.einsum("nia,nja->nij", unit[rows], unit[rows])[:, i, j]
        ends = network.species[network.second[rows]]
        ends = np.sort(np.stack([ends[:, i], ends[:, j]], axis=-1), axis=-1)
        centre = np.broadcast_to(network.species[atoms][:, None, None], (*cosines.shape, 1))
        angles.append(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))).reshape(-1))
        kinds.append(np.concatenate([centre, ends], axis=-1).reshape(-1, 3))
    return np.concatenate(angles), np.concatenate(kinds)


def _angles(structures, elements, cutoffs):
    """Per triplet, as `angle_distribution` without switch makes them (1/rad), without compiling a program per triplet."""
    angles, found = [bond_angles_by_kind(bonds(s, cutoffs)) for s in structures], {}
    for (c, centre), (a, b) in itertools.product(enumerate(elements), itertools.combinations_with_replacement(range(len(elements)), 2)):
        chosen = [np.radians(values[(kinds == np.array([[c, a, b]])).all(axis=1)]) for values, kinds in angles]
        rows = [smeared(values, np.radians(ANGLES), np.pi, ANGLE_WIDTH) for values in chosen]
        found[f"{elements[a]}-{centre}-{elements[b]}"] = ANGLES, np.stack(rows)
    return found


def _dihedral(structures, elements, cutoffs):
    angles = [dihedral_angles(s, cutoffs) for s in structures]
    kinds = {"total": None}
    if len(elements) > 1:
        kinds |= {f"{elements[a]}-{elements[b]}": (a, b) for a, b in itertools.combinations_with_replacement(range(len(elements)), 2)}
    found = {}
    for name, kind in kinds.items():
        chosen = [a if kind is None else a[(k == np.array([kind])).all(axis=1)] for a, k in angles]
        found[name] = ANGLES, np.stack([smeared(np.radians(a), np.radians(ANGLES), np.pi, ANGLE_WIDTH) for a in chosen])
    return found


_order = jax.jit(bond_order, static_argnums=2)


def steinhardt_values(network: Bonds, degree: int) -> np.ndarray:
    """q_l of each atom [n] over its bonds, see `order.steinhardt`."""
    degrees = np.bincount(network.first, minlength=len(network.species))
    slots = 8 * int(np.ceil(max(1, degrees.max()) / 8))  # few shapes to compile
    place = np.arange(len(network.first)) - (np.cumsum(degrees) - degrees)[network.first]
    vectors, weights = np.ones((len(degrees), slots, 3)), np.zeros((len(degrees), slots))
    vectors[network.first, place], weights[network.first, place] = network.vectors, 1.0
    return np.asarray(_order(jnp.asarray(vectors), jnp.asarray(weights), degree), dtype=float)


def _steinhardt(structures, elements, cutoffs, degree: int):
    networks = [bonds(s, cutoffs) for s in structures]
    values = [steinhardt_values(one, degree) for one in networks]
    kinds = {"total": None} | ({e: i for i, e in enumerate(elements)} if len(elements) > 1 else {})
    found = {}
    for name, kind in kinds.items():
        chosen = [v if kind is None else v[one.species == kind] for v, one in zip(values, networks, strict=True)]
        found[name] = ORDERS, np.stack([smeared(v, ORDERS, 1.0, ORDER_WIDTH) for v in chosen])
    return found


def _voronoi(structures, elements):
    """Shares of each index that occurs anywhere; x holds the names."""
    every = [(np.asarray(s.species), np.array([index_name(i) for i in voronoi_indices(s)])) for s in structures]
    kinds = {"total": None} | ({e: i for i, e in enumerate(elements)} if len(elements) > 1 else {})
    found = {}
    for name, kind in kinds.items():
        chosen = [names if kind is None else names[species == kind] for species, names in every]
        labels = np.unique(np.concatenate(chosen))
        found[name] = labels, np.stack([(names[None] == labels[:, None]).mean(axis=1) for names in chosen])
    return found
