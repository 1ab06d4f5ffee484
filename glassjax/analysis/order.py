"""Order in the first shell: partial coordination, Warren-Cowley parameters, and Steinhardt's q_l as a differentiable function."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glassjax.analysis.bonds import bonds, check_cutoffs
from glassjax.neighbors import NeighborSpec, neighbor_spec
from glassjax.observables.coordination import check_switch, gathered_graph, lengths, switch_weight
from glassjax.structure import Structure

TINY = 1e-7  # q_l^2 below which q_l has gradient 0: its square root has none there


def partial_coordination(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Mean number of b atoms about an a atom, n_ab, per ordered pair (a, b) of elements that are there (centre first)."""
    network = bonds(structure, cutoff)
    numbers, present = network.numbers(), np.unique(network.species)
    return {(network.elements[a], network.elements[b]): float(numbers[network.species == a, b].mean()) for a in present for b in present}


def warren_cowley(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Chemical short-range order of the first shell per ordered pair (centre a, neighbour b): alpha_ab = 1 - n_ab / (c_b n_a).

    n_ab is the mean number of b about a, n_a = sum_b n_ab, c_b the concentration of b. 0 is a random mixture, below 0 a preference for that
    neighbour, 1 none of them (CsCl: -1 for Cs-Cl, 1 for Cs-Cs); sum_b c_b alpha_ab = 0. NaN for an element without any neighbour. Cowley, Phys. Rev.
    77, 669 (1950).
    """
    network = bonds(structure, cutoff)
    numbers, species = network.numbers(), network.species
    present, share = np.unique(species), np.bincount(species, minlength=len(network.elements)) / len(species)
    found = {}
    for a in present:
        mean = numbers[species == a].mean(axis=0)
        for b in present:
            found[network.elements[a], network.elements[b]] = float(1 - mean[b] / (share[b] * mean.sum())) if mean.sum() > 0 else float("nan")
    return found


def steinhardt(
    structure: Structure, degree: int = 6, *, cutoff: float | Mapping[tuple[str, str], float], switch: float = 0.0, spec: NeighborSpec | None = None
) -> jax.Array:
    """Bond-orientational order q_l of every atom [n], differentiable in positions and cell; NaN if the neighbour list overflowed.

    q_l = sqrt(4 pi / (2 l + 1) sum_m |sum_j w_j Y_lm(r_ij) / sum_j w_j|^2), Steinhardt et al., Phys. Rev. B 28, 784 (1983), with the bond's weight w
    of `observables.coordination.switch_weight`: 1 inside the cutoff, fading over ``switch`` about it. fcc with 12 neighbours has q_4 0.1909, q_6
    0.5745; an atom without neighbours, or an empty slot, 0. With ``switch`` = 0 the gradient does not see bonds form or break.

    Args:
      structure: of any cell; images count.
      degree: l, at least 1.
      cutoff: A, one or per pair of elements.
      switch: A, width of the switch.
      spec: neighbour list out to at least the largest cutoff + switch / 2; needed under jit (by default made for this structure).

    Raises:
      ValueError: degree, cutoff or switch out of range, or a list that is too short.
    """
    _check_degree(degree)
    limits = check_cutoffs(cutoff, structure.elements)
    reach = check_switch(limits, switch)
    if spec is not None and spec.cutoff < reach - 1e-6:
        raise ValueError(f"got a neighbour list to {spec.cutoff:g} A; needs {reach:g} A; make it with neighbor_spec(structure, {reach:g})")
    graph = gathered_graph(structure, neighbor_spec(structure, reach) if spec is None else spec)
    limit = jnp.asarray(limits, structure.positions.dtype)
    species = jnp.maximum(structure.species, 0)
    weight = switch_weight(lengths(graph.displacements), limit[species[:, None], species[graph.neighbors]], switch)[0]
    return bond_order(graph.displacements, jnp.where(graph.mask, weight, 0.0), degree)


def bond_order(displacements: jax.Array, weights: jax.Array, degree: int) -> jax.Array:
    """q_l [n] from ``displacements`` to neighbours [n, k, 3] with ``weights`` [n, k]; see `steinhardt`.

    By the addition theorem q_l^2 = sum_jk w_j w_k P_l(cos theta_jk) / (sum_j w_j)^2, so no spherical harmonic is needed.
    """
    _check_degree(degree)
    unit = displacements / lengths(displacements)[..., None]
    total = jnp.sum(weights, axis=1)
    square = jnp.einsum("ij,ik,ijk->i", weights, weights, legendre(degree, jnp.einsum("ija,ika->ijk", unit, unit)))
    square = square / jnp.where(total > 0, total, 1.0) ** 2
    held = square > TINY
    q = jnp.where(held, jnp.sqrt(jnp.where(held, square, 1.0)), 0.0)
    return jnp.where(jnp.isnan(displacements).any(), jnp.nan, q)


def _check_degree(degree) -> None:
    if not (isinstance(degree, int) and degree >= 1):
        raise ValueError(f"got degree {degree}; needs a positive whole number (4 and 6 are usual)")


def legendre(degree: int, x: jax.Array) -> jax.Array:
    """P_l(x) by Bonnet's recursion."""
    before, now = jnp.ones_like(x), x
    for n in range(1, degree):
        before, now = now, ((2 * n + 1) * x * now - n * before) / (n + 1)
    return now if degree > 0 else before
