"""The averaged spectrum of a surrogate as an observable, with a Jacobian that fades where the surrogate is not to be trusted.

curve = W (1/N) sum over absorbers i of S_i, with S_i the mean of the members' spectra and W a linear interpolation onto the points of the data. The
derivative is that of W (1/N) sum_i t_i P S_i, t_i = 1 / (1 + (d_i / s)^2) with d_i the members' disagreement and s the surrogate's scale, held fixed,
and P the projection on the leading principal directions of the training spectra: one reverse pass per direction.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, static
from glassjax.neighbors import Graph, NeighborSpec
from glassjax.observables.coordination import gathered_graph, lengths, same_elements
from glassjax.observables.listed import Listed
from glassjax.priors import features
from glassjax.structure import Structure
from glassjax.surrogates.surrogate import KINDS, Surrogate, disagreement


@frozen
class SpectrumObservable(Listed):
    """See `spectrum`; ``observable(structure) -> [m]``.

    Attributes:
      x: [m] energy or wavenumber, in the surrogate's unit.
      rows: [m, points] interpolation from the surrogate's points.
      surrogate: the ensemble.
      components: directions of the Jacobian (static).
      largest_move: A, farthest that guidance may move an atom's estimate in one step: beyond, the derivative of a network says nothing (static).
      function: "mu(E)" or "chi(k)" (static).
      elements: species order (static).
      rmax: A, reach of the neighbour list (static).
      convention: one line for the record (static).
      spec: neighbour list out to ``rmax`` (static).
    """

    x: jax.Array
    rows: jax.Array
    surrogate: Surrogate
    components: int = static()
    largest_move: float = static()
    function: str = static()
    elements: tuple[str, ...] = static()
    rmax: float = static()
    convention: str = static(default="")
    spec: NeighborSpec | None = static(default=None)

    def trust(self, members: jax.Array) -> jax.Array:
        """t [n] = 1 / (1 + (d / s)^2) of the members' spectra [members, n, points]."""
        return 1.0 / (1.0 + (disagreement(members) / self.surrogate.scale) ** 2)

    def __call__(self, structure: Structure) -> jax.Array:
        """The curve [m]; its gradient fades as the Jacobian does; NaN if the neighbour list overflowed."""
        same_elements(self, structure)
        graph = gathered_graph(structure, self.listed(structure))
        packed = self._packed(structure, graph)
        members = self.surrogate.decode(self.surrogate.outputs(packed))
        mean, held = jnp.mean(members, axis=0), jax.lax.stop_gradient(members)
        trusted = jax.lax.stop_gradient(self.trust(held))[:, None]
        damped = jnp.mean(held, axis=0) + trusted * (mean - jax.lax.stop_gradient(mean))
        return self.rows @ jnp.sum(self._share(packed)[:, None] * damped, axis=0)

    def linearize(self, structure: Structure, graph: Graph) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The curve and its damped derivatives along the leading directions, from a graph that reaches at least ``rmax``.

        Returns:
          (curve [m], d curve / d positions [n, 3, m], d curve / d ln L at fixed fractional coordinates [m]); NaN where the graph overflowed.
        """
        same_elements(self, structure)
        surrogate, packed = self.surrogate, self._packed(structure, graph)
        displacements, share = packed.edges["displacements"], self._share(packed)

        def outputs(d):
            edges = packed.edges | dict(displacements=d, distances=jnp.where(packed.edges["mask"], lengths(d), surrogate.cutoff))
            return surrogate.outputs(packed._replace(edges=edges))

        made, back = jax.vjp(outputs, displacements)
        members = surrogate.decode(made)
        curve = self.rows @ jnp.sum(share[:, None] * jnp.mean(members, axis=0), axis=0)
        weight = share * self.trust(members) / members.shape[0]
        directions, cotangents = self._directions()
        spread = weight[None, None, :, None] * cotangents[:, None, None]
        push = jax.lax.map(lambda one: back(one)[0], jnp.broadcast_to(spread, (len(cotangents), *made.shape)))  # [c, e, 3]
        push = jnp.moveaxis(jnp.where(packed.edges["mask"][None, :, None], push, 0.0), 0, -1)
        atoms = features.leave(push, packed) - features.aggregate(push, packed)
        lift = directions.T @ self.rows.T  # [c, m]
        return curve, atoms @ lift, jnp.einsum("eac,ea->c", push, displacements) @ lift

    def _packed(self, structure: Structure, graph: Graph):
        surrogate, kind = self.surrogate, structure.positions.dtype
        return graph.to_jraph(surrogate.species_of(structure), surrogate.sigma.astype(kind), reverse=True, rows=surrogate.network.in_rows)

    def _share(self, packed) -> jax.Array:
        """[n] weight of each atom in the average: 1 / N for the absorbers."""
        absorbs = packed.nodes["species"] == self.surrogate.elements.index(self.surrogate.absorber)
        return absorbs / jnp.maximum(jnp.sum(absorbs), 1).astype(self.rows.dtype)

    def _directions(self) -> tuple[jax.Array, jax.Array]:
        """(directions [points, c], cotangents [c, p] of the outputs whose pullback is the derivative along each direction)."""
        basis = self.surrogate.basis[: self.components]
        deviation = jnp.sqrt(jnp.sum(basis**2, axis=1, keepdims=True))
        unit = basis / deviation
        if self.surrogate.network.principal:
            return unit.T, jnp.eye(len(basis), self.surrogate.basis.shape[0], dtype=basis.dtype) * deviation
        return unit.T, unit * jnp.sqrt(jnp.sum(self.surrogate.basis**2) / basis.shape[1])


def spectrum(surrogate: Surrogate, x=None, *, components: int = 8, elements=None, largest_move: float = 0.1) -> SpectrumObservable:
    """The spectrum of a structure, averaged over its absorbing atoms, by a surrogate.

    Args:
      surrogate: see `load_surrogate`.
      x: [m] ascending points inside the surrogate's, in its unit; by default its own.
      components: directions of the Jacobian; each costs one reverse pass through every member.
      elements: order of the elements of the structures; by default the surrogate's.
      largest_move: A, see `SpectrumObservable`.

    Raises:
      ValueError: points out of order or beyond the surrogate's, an element that it does not know, components below 1.
    """
    own = np.asarray(surrogate.x, dtype=float)
    points = own if x is None else np.asarray(x, dtype=float)
    if points.ndim != 1 or len(points) < 1 or not (np.diff(points) > 0).all():
        raise ValueError(f"got points of shape {points.shape}; needs one-dimensional, ascending {surrogate.unit}")
    if points[0] < own[0] - 1e-6 or points[-1] > own[-1] + 1e-6:
        raise ValueError(
            f"got points from {points[0]:g} to {points[-1]:g} {surrogate.unit}; the surrogate reaches from {own[0]:g} to {own[-1]:g}: cut the data"
        )
    names = surrogate.elements if elements is None else tuple(elements)
    if surrogate.absorber not in names or any(e not in surrogate.elements for e in names):
        raise ValueError(f"got elements {', '.join(names)}; needs {surrogate.absorber}, and others only among {', '.join(surrogate.elements)}")
    if components < 1:
        raise ValueError(f"got {components} components; needs at least 1 (8 is usual)")
    rows = np.stack([np.interp(points, own, column) for column in np.eye(len(own))], axis=1)
    kind = jnp.result_type(float)
    return SpectrumObservable(
        x=jnp.asarray(points, kind),
        rows=jnp.asarray(rows, kind),
        surrogate=surrogate,
        largest_move=float(largest_move),
        components=min(int(components), surrogate.basis.shape[0]),
        function=KINDS[surrogate.kind],
        elements=names,
        rmax=float(surrogate.cutoff),
        convention=f"{KINDS[surrogate.kind]} of the {surrogate.absorber} {surrogate.edge} edge, mean over absorbers, {surrogate.members} networks",
    )
