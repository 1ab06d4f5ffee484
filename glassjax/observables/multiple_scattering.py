"""EXAFS with multiple scattering: single scattering plus every path of three and four legs over one or two atoms, summed over triangles of atoms.

chi_ms(k) = S0^2 / N_a sum over absorbers a, pairs j < k of
                D Im[ P(k; r_aj, r_ak, r_jk) exp(2 i k L) ] exp(-2 L / lambda(k)) / (k product of legs) exp(-2 k^2 sigma^2)

over the paths a-j-k-a (L = half the perimeter, D = 2), a-j-a-k-a (L = r_aj + r_ak, D = 2), a-j-k-j-a and a-k-j-k-a (L = r_aj + r_jk, D = 1), with
P from `scattering_tables` (FEFF's paths); a-j-a-j-a is a function of one distance and counted with the pairs. Paths of four legs over three atoms are
left out.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, replace, static
from glassjax.compaction import compact
from glassjax.neighbors import Graph, NeighborSpec, neighbor_spec
from glassjax.observables.coordination import bonded, gathered_graph, onto_atoms, same_elements, strain_of
from glassjax.observables.exafs import TAPER, exafs, parse_edge
from glassjax.observables.listed import Listed
from glassjax.observables.pair import PairObservable
from glassjax.observables.weights import fractions_of
from glassjax.scattering_tables import KINDS, ScatteringTable, find_table, path_terms, shifted
from glassjax.structure import Structure, number_density

BLOCK = 16  # absorbers per block: bounds the memory of triangles


@frozen
class MultipleScattering(Listed):
    """See `multiple_scattering`; ``observable(structure) -> [m]``.

    Attributes:
      x: [m] k, 1/A.
      single: the single scattering, with the paths a-j-a-j-a.
      k: [m] of FEFF, shifted.
      damping: [m] S0^2 k^w exp(-2 k^2 sigma^2) / k.
      mean_free_path: [m] A.
      coefficients: real and imaginary parts [b, 2m] of each entry of ``paths``.
      paths: (kind, species of j, species of k) (static).
      absorber: index of its species (static).
      reach: A, longest half path of multiple scattering (static).
      taper: A (static).
      shortest: A, shortest leg of the table's paths (static).
      elements: species order (static).
      rmax: A, farthest pair of single scattering (static).
      function: "chi(k)" (static).
      convention: one line for the record (static).
      spec: neighbour list out to ``rmax``; its ``edges`` hold the triangles per absorber (static).
    """

    x: jax.Array
    single: PairObservable
    k: jax.Array
    damping: jax.Array
    mean_free_path: jax.Array
    coefficients: tuple[jax.Array, ...]
    paths: tuple[tuple[str, int, int], ...] = static()
    absorber: int = static()
    reach: float = static()
    taper: float = static()
    shortest: float = static()
    elements: tuple[str, ...] = static()
    rmax: float = static()
    function: str = static(default="chi(k)")
    convention: str = static(default="")
    spec: NeighborSpec | None = static(default=None)

    def fit(self, structure: Structure, **options) -> MultipleScattering:
        """The same observable with lists of neighbours and triangles for structures like this one (options: `neighbor_spec`)."""
        spec = neighbor_spec(structure, self.rmax, **options)
        triangles = _triangles(float(number_density(structure)), self.reach)
        return replace(self, spec=replace(spec, edges=triangles))

    def needed(self, structure: Structure, graph: Graph) -> jax.Array:
        """[neighbours, triangles per absorber, cell occupancy] met."""
        near = self._near(graph)
        count = jnp.max(jnp.sum(self._in_reach(structure, near), axis=1))
        # a near list that overflowed asks for a larger one, whose capacity follows that of the whole
        whole, cut = graph.neighbors.shape[1], near.neighbors.shape[1]
        wanted = jnp.where(near.needed[0] > cut, jnp.maximum(graph.needed[0], whole * near.needed[0] // cut + 4), graph.needed[0])
        return jnp.stack([wanted, jnp.where(near.needed[0] > cut, 0, count), graph.needed[2]]).astype(jnp.int32)

    def __call__(self, structure: Structure) -> jax.Array:
        """The curve [m]; NaN if a list overflowed."""
        same_elements(self, structure)
        fitted = self if self.spec is not None else self.fit(structure)
        graph = gathered_graph(structure, fitted.spec)
        return replace(self.single, spec=fitted.spec)(structure) + fitted._multiple(structure, fitted._near(graph), derivative=False)[0]

    def linearize(self, structure: Structure, graph: Graph) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The curve [m], d curve / d positions [n, 3, m], d curve / d ln L [m] at fixed fractional coordinates; NaN where a list overflowed."""
        same_elements(self, structure)
        fitted = self if self.spec is not None else self.fit(structure)
        pairs, jacobian, strain = linearized_pairs(self.single, structure, graph)
        near = fitted._near(graph)
        curve, push = fitted._multiple(structure, near, derivative=True)
        return pairs + curve, jacobian + onto_atoms(near, push), strain + strain_of(near, push)

    def _near(self, graph: Graph) -> Graph:
        """The neighbours that a path within reach can visit."""
        capacity = graph.neighbors.shape[1]
        share = (self.reach / self.rmax) ** 3
        if share < 0.8:
            capacity = min(capacity, 4 * math.ceil((1.3 * share * capacity + 8) / 4))
        return bonded(graph, graph.distances < self.reach, capacity)

    def _slots(self, graph: Graph):
        """Slots of both ends [P] of every pair of neighbours."""
        return np.triu_indices(graph.neighbors.shape[1], 1)

    def _in_reach(self, structure: Structure, graph: Graph) -> jax.Array:
        """Which pairs of neighbours [n, P] make a path within reach."""
        a, b = self._slots(graph)
        r = graph.distances
        gap = graph.displacements[:, b] - graph.displacements[:, a]
        across = jnp.sqrt(jnp.sum(gap**2, axis=-1))
        shortest = across + jnp.minimum(r[:, a], r[:, b])
        shortest = jnp.minimum(jnp.minimum(shortest, r[:, a] + r[:, b]), 0.5 * (r[:, a] + r[:, b] + across))
        there = graph.mask[:, a] & graph.mask[:, b] & (structure.species == self.absorber)[:, None]
        return there & (shortest < self.reach)

    def _multiple(self, structure: Structure, graph: Graph, *, derivative: bool):
        """Curve [m] of the triangles, and its derivative with respect to every displacement [n, k, 3, m] (or None)."""
        a, b = self._slots(graph)
        slots, mask, degree = compact(jax.lax.stop_gradient(self._in_reach(structure, graph)), min(self.spec.edges, len(a)))
        first, second = jnp.asarray(a)[slots], jnp.asarray(b)[slots]
        other = structure.species[graph.neighbors]
        species = jnp.take_along_axis(other, first, axis=1), jnp.take_along_axis(other, second, axis=1)
        block = min(BLOCK, mask.shape[0])
        k = graph.neighbors.shape[1]
        share = 1.0 / jnp.maximum(jnp.sum(structure.species == self.absorber), 1)

        def cut(array, fill):
            array = jnp.pad(array, ((0, -array.shape[0] % block),) + ((0, 0),) * (array.ndim - 1), constant_values=fill)
            return array.reshape(-1, block, *array.shape[1:])

        given = [cut(array, 0) for array in (first, second, *species)] + [cut(mask, False), cut(graph.displacements, 1.0)]

        def step(total, part):
            first, second, one, two, mask, displacements = part
            near = jnp.take_along_axis(displacements, first[..., None], axis=1)
            far = jnp.take_along_axis(displacements, second[..., None], axis=1)
            lengths = [_length(v, mask, fill) for v, fill in ((near, 2.0), (far, 2.0), (far - near, 2.5))]

            def curve(*r):
                return self._paths(r, one, two, mask)

            if not derivative:
                return total + jnp.einsum("btm->m", curve(*lengths)), None
            zero, ones = jnp.zeros_like(lengths[0]), jnp.ones_like(lengths[0])
            value, slope = jax.linearize(curve, *lengths)
            slopes = [slope(*[ones if i == j else zero for j in range(3)]) for i in range(3)]
            units = [v / r[..., None] for v, r in zip((near, far, far - near), lengths, strict=True)]
            along = [s[..., None, :] * u[..., None] for s, u in zip(slopes, units, strict=True)]
            ends = [(first, along[0] - along[2]), (second, along[1] + along[2])]
            rows = jnp.arange(block)[:, None]
            push = sum(jnp.zeros((block, k, *values.shape[2:]), values.dtype).at[rows, slot].add(values) for slot, values in ends)
            return total + jnp.einsum("btm->m", value), push

        total, push = jax.lax.scan(step, jnp.zeros(self.x.shape, graph.distances.dtype), tuple(given))
        fits = (jnp.max(degree) <= self.spec.edges) & ~jnp.isnan(graph.displacements).any()
        total = jnp.where(fits, total * share, jnp.nan)
        if not derivative:
            return total, None
        return total, jnp.where(fits, push.reshape(-1, k, 3, self.x.shape[0])[: mask.shape[0]] * share, jnp.nan)

    def _paths(self, lengths, one, two, mask):
        """Contribution [b, t, m] of every triangle."""
        near, far, across = (jnp.maximum(r, self.shortest) for r in lengths)  # closer atoms than any seen count as those
        total = 0.0
        for (kind, j, k), coefficients in zip(self.paths, self.coefficients, strict=True):
            total = total + self._path(kind, near, far, across, coefficients, mask & (one == j) & (two == k))
            if kind == "through":
                total = total + self._path(kind, far, near, across, coefficients, mask & (two == j) & (one == k))
        return total * self.damping[None, None]

    def _path(self, kind, near, far, across, coefficients, chosen):
        half, product, columns = path_terms(kind, near, far, across)
        weight = jnp.where(chosen & (half < self.reach), (1.0 if kind == "through" else 2.0) / product, 0.0)
        if self.taper:
            weight = weight * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((half - self.reach + self.taper) / self.taper, 0.0, 1.0)))
        amplitude = jnp.stack(columns, axis=-1) @ coefficients
        m = self.x.shape[0]
        phase = 2.0 * self.k[None, None] * half[..., None]
        wave = amplitude[..., :m] * jnp.sin(phase) + amplitude[..., m:] * jnp.cos(phase)
        return weight[..., None] * wave * jnp.exp(-2.0 * half[..., None] / self.mean_free_path[None, None])


def _length(v, mask, fill: float):
    """Lengths [b, t], A; ``fill`` in empty slots, where the vector may be zero."""
    square = jnp.where(mask, jnp.sum(v**2, axis=-1), fill**2)
    return jnp.sqrt(jnp.maximum(square, 0.25))


def _triangles(density: float, reach: float) -> int:
    """Slots for triangles per absorber: the most met about 40 atoms of an ideal gas, with a margin (host)."""
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(40):
        d = rng.uniform(-reach, reach, (rng.poisson(density * (2 * reach) ** 3), 3))
        r = np.linalg.norm(d, axis=1)
        d, r = d[r < reach], r[r < reach]
        across = np.linalg.norm(d[:, None] - d[None], axis=-1)
        pair = r[:, None] + r[None]
        shortest = np.minimum(np.minimum(across + np.minimum(r[:, None], r[None]), pair), 0.5 * (pair + across))
        most = max(most, int(np.triu(shortest < reach, 1).sum()))
    return 32 * math.ceil((1.2 * most + 16) / 32)


def linearized_pairs(one: PairObservable, structure: Structure, graph: Graph):
    """Curve, Jacobian and strain of one pair observable from a graph that reaches at least its rmax."""
    from glassjax.observables.jacobian import pair_rows

    curves, jacobian, strain = pair_rows([one]).linearize(structure, graph, [one])
    return curves[0], jacobian, strain


def multiple_scattering(
    k,
    composition,
    *,
    edge: str,
    number_density: float,
    reach: float | None = None,
    kweight: float = 0,
    s02: float = 1.0,
    e0_shift: float = 0.0,
    mean_square: float = 0.0,
    rmax: float | None = None,
    taper: float = TAPER,
    table: str | ScatteringTable | None = None,
) -> MultipleScattering:
    """k^w chi(k) with single scattering out to ``rmax`` and multiple scattering out to the half path length ``reach``.

    Args:
      k, composition, edge, number_density, kweight, s02, e0_shift, mean_square, rmax, taper, table: see `exafs`.
      reach: A; by default the table's.

    Raises:
      ValueError: see `exafs`; a table without multiple scattering, or a reach beyond it.
    """
    fractions = fractions_of(composition)
    elements = tuple(fractions)
    absorber, level = parse_edge(edge, elements)
    found = table if isinstance(table, ScatteringTable) else find_table(elements, absorber, level, table)
    longest = found.reach_multiple if reach is None else float(reach)
    if not found.double or not 0 < longest <= found.reach_multiple + 1e-6:
        raise ValueError(
            f"got a reach of {longest:g} A; the table of {edge} has multiple scattering up to {found.reach_multiple:g} A; lower it, or make a table "
            "with `glassjax exafs-table --reach-multiple`"
        )
    options = dict(kweight=kweight, s02=s02, e0_shift=e0_shift, mean_square=mean_square, rmax=rmax, taper=taper, table=found)
    single = exafs(k, composition, edge=edge, number_density=number_density, back_reach=longest, **options)
    at = shifted(k, e0_shift)
    paths, coefficients = [], []
    for kind, j, i in itertools.product(KINDS, elements, elements):
        values = found.double_coefficients(at, kind, j, i)
        if values is not None:
            paths.append((kind, elements.index(j), elements.index(i)))
            coefficients.append(np.concatenate([values.real, values.imag], axis=1))
    kind = jnp.result_type(float)
    return MultipleScattering(
        x=single.x,
        single=single,
        k=jnp.asarray(at, kind),
        damping=jnp.asarray(s02 * np.asarray(k, dtype=float) ** kweight * np.exp(-2 * at**2 * mean_square) / at, kind),
        mean_free_path=jnp.asarray(found.wavelength(at), kind),
        coefficients=tuple(jnp.asarray(c, kind) for c in coefficients),
        paths=tuple(paths),
        absorber=elements.index(absorber),
        reach=longest,
        taper=float(taper),
        shortest=0.9 * min(found.shortest.values()),
        elements=elements,
        rmax=single.rmax,
        convention=f"{single.convention}; paths of 3 and 4 legs over at most two atoms to {longest:g} A",
    )
