"""A guided score is a score: wrap a prior with data (`posterior`) or with a minimum distance (`keep_apart`)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from glassjax._pytree import frozen, replace, static
from glassjax.neighbors import NeighborSpec, build, grow, neighbor_spec
from glassjax.observables import histogram, pair
from glassjax.structure import Structure, number_density, number_of_atoms, pair_matrix
from glassjax.targets import Target, r_factor

REFINE = 4  # nodes of the slope table per node of the radial grid: a slope is read at most STEP / 8 = 0.0025 A from its pair
BLOCK = 64  # atoms per block of the Jacobian: bounds its memory at BLOCK x neighbours x rows


@frozen
class Posterior:
    """See `posterior`.

    Attributes:
      score: the score to guide.
      targets: the data; all share one pair pass.
      rows: [e * e, m, points] pair functions of all targets on one grid.
      slopes: [e * e * points * REFINE, m] their derivatives on a denser grid, both directions of a pair together, per unit of the density factor.
      strength: 1 means as strong as the data say.
      prior_width: A, s0 in r_t^2 = sigma^2 / (1 + sigma^2 / s0^2).
      method: "pseudo-inverse" or "gradient" (static).
      spec: neighbour list out to the farthest target (static).
    """

    score: object
    targets: tuple[Target, ...]
    rows: jax.Array
    slopes: jax.Array
    strength: jax.Array
    prior_width: jax.Array
    method: str = static()
    spec: NeighborSpec | None = static(default=None)

    @property
    def reach(self) -> float:
        """Farthest pair that a target counts, A."""
        return max(t.observable.rmax for t in self.targets)

    def fit(self, structure: Structure) -> Posterior:
        """The same score with neighbour lists for structures like this one."""
        return replace(self, score=self.score.fit(structure), spec=neighbor_spec(structure, self.reach))

    def grown(self, info: dict) -> Posterior:
        """The same score with capacities that suffice for what ``info`` reported."""
        return replace(self, score=self.score.grown(info), spec=grow(self.spec, info["needed_pairs"]))

    def __call__(self, structure: Structure, sigma):
        """Guided score [n, 3]; info adds ``needed_pairs`` and ``r_factor`` [targets] of the denoised estimate."""
        score, info = self.score(structure, sigma)
        spec = neighbor_spec(structure, self.reach) if self.spec is None else self.spec
        estimate = replace(structure, positions=structure.positions + sigma**2 * score)
        graph = build(estimate, spec)
        counts = histogram.deposit(estimate, graph, self.rows.shape[-1])
        models = [t.observable.from_histogram(estimate, counts) for t in self.targets]
        factor = self._factor(estimate)
        if self.method == "gradient":
            push = self._gradient(estimate, graph, models, factor)
        else:
            push = self._pseudo_inverse(estimate, graph, models, factor, sigma)
        push = jnp.where((structure.species >= 0)[:, None], push, 0.0)
        ratios = jnp.stack([r_factor(t, m) for t, m in zip(self.targets, models, strict=True)])
        return score + push, info | {"needed_pairs": graph.needed, "r_factor": ratios}

    def _factor(self, structure):
        """rho0^power / N of every row [m]."""
        density, atoms = number_density(structure), number_of_atoms(structure)
        return jnp.concatenate([jnp.full(t.data.shape, density**t.observable.power / atoms) for t in self.targets])

    def _pull(self, structure, graph, vector, factor):
        """J^T vector [n, 3], exact: pairs gather the derivative of the rows."""
        cotangent = jnp.einsum("pkm,k->pm", self.rows, vector * factor)
        slope = histogram.pull_back(structure, graph, cotangent)
        unit = graph.displacements / jnp.maximum(graph.distances, 1e-6)[..., None]
        return -jnp.sum(slope[..., None] * unit, axis=1)

    def _gradient(self, structure, graph, models, factor):
        """-(w / sum_c n_c) dL/dx0 with L = sum_c n_c^2, n_c the norm of target c's residual (the paper's)."""
        residuals = [t.data - m for t, m in zip(self.targets, models, strict=True)]
        norms = sum(jnp.sqrt(jnp.sum(r**2) + 1e-12) for r in residuals)
        return self.strength / norms * self._pull(structure, graph, 2.0 * jnp.concatenate(residuals), factor)

    def _pseudo_inverse(self, structure, graph, models, factor, sigma):
        """(r_t^2 / sigma^2) J^T (C_y + r_t^2 J J^T)^-1 (y - F)."""
        residual = jnp.concatenate([t.data - m for t, m in zip(self.targets, models, strict=True)])
        variance = jnp.concatenate([t.uncertainty**2 for t in self.targets]) / self.strength
        spread = sigma**2 / (1.0 + (sigma / self.prior_width) ** 2)
        scale = 1.0 / jnp.sqrt(variance)
        index = self._slope_index(structure, graph)
        gram = self._gram(graph, index) * jnp.outer(factor * scale, factor * scale)
        system = spread * gram + jnp.eye(len(scale), dtype=gram.dtype)
        solution = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(system), True), residual * scale) * scale
        # the same J as in the system, or rounding of its slopes would be amplified along directions that the data fix well
        slope = (self.slopes @ (solution * factor))[index]
        unit = graph.displacements / jnp.maximum(graph.distances, 1e-6)[..., None]
        return -spread / sigma**2 * jnp.sum(slope[..., None] * unit, axis=1)

    def _slope_index(self, structure, graph):
        """Row of the slope table for each pair [n, k]."""
        points = self.rows.shape[-1] * REFINE
        node = jnp.clip(jnp.round(graph.distances * (REFINE / histogram.STEP)).astype(jnp.int32), 0, points - 1)
        # an empty slot points at the last node, where every slope is zero
        return jnp.where(graph.mask, histogram.pair_type(structure, graph) * points + node, points - 1)

    def _gram(self, graph, index):
        """J J^T [m, m] without the density factor, over blocks of atoms."""
        n, k = index.shape
        unit = graph.displacements / jnp.maximum(graph.distances, 1e-6)[..., None]
        block = min(BLOCK, n)
        short = -n % block
        index = jnp.pad(index, ((0, short), (0, 0)), constant_values=self.rows.shape[-1] * REFINE - 1).reshape(-1, block, k)
        unit = jnp.pad(unit, ((0, short), (0, 0), (0, 0))).reshape(-1, block, k, 3)

        def accumulate(total, part):
            rows, directions = part
            jacobian = jnp.einsum("ikc,ikm->icm", directions, self.slopes[rows]).reshape(-1, self.slopes.shape[1])
            return total + jacobian.T @ jacobian, None

        total, _ = jax.lax.scan(accumulate, jnp.zeros((self.slopes.shape[1],) * 2, unit.dtype), (index, unit))
        return total


def posterior(
    score, targets: Target | Sequence[Target], *, strength: float | None = None, method: str = "pseudo-inverse", prior_width: float = 0.5
) -> Posterior:
    """A score guided by data.

    "pseudo-inverse" (Song et al., ICLR 2023): with x0 the denoised estimate, J = dF/dx0 and r_t^2 = sigma^2 / (1 + sigma^2 / s0^2),
        s_guide = (r_t^2 / sigma^2) J^T (C_y / strength + r_t^2 J J^T)^-1 (y - F(x0)).
    "gradient" (GLASS): s_guide = -(w / sum_c n_c) dL/dx0, L = sum_c n_c^2, n_c = |y_c - F_c(x0)|, with w = ``strength``, which depends on the
    units of the data (3000 for g(r) of silicon in the paper). No gradient runs through the network in either.

    Args:
      score: the score to guide: a prior, or another wrapped score.
      targets: one target or several.
      strength: 1 (default) is as strong as the data's uncertainties say; required for "gradient".
      method: see above.
      prior_width: s0, A.

    Raises:
      ValueError: no target, unknown method, no strength for "gradient", or targets that disagree on the elements.
    """
    targets = (targets,) if isinstance(targets, Target) else tuple(targets)
    if not targets:
        raise ValueError("no target; needs at least one (use the prior itself to sample without data)")
    if method not in ("pseudo-inverse", "gradient"):
        raise ValueError(f"method is {method!r}; needs 'pseudo-inverse' or 'gradient'")
    if method == "gradient" and strength is None:
        raise ValueError("the gradient method needs a strength: its weight w depends on the units of the data (3000 for g(r) of silicon)")
    if strength is not None and not strength > 0:
        raise ValueError(f"strength is {strength}; needs a positive number (1 is as strong as the data say)")
    if len({t.observable.elements for t in targets}) > 1:
        raise ValueError(f"targets are for {[t.observable.elements for t in targets]}; needs the same elements in the same order")
    points = max(t.observable.points for t in targets)
    rows = jnp.concatenate([pair.with_points(t.observable, points).rows for t in targets], axis=1)
    e = len(targets[0].observable.elements)
    slope = histogram.slope_table(rows, REFINE)
    both = slope + slope.reshape(e, e, *slope.shape[1:]).swapaxes(0, 1).reshape(slope.shape)
    return Posterior(
        score=score,
        targets=targets,
        rows=rows,
        slopes=both.swapaxes(1, 2).reshape(e * e * points * REFINE, -1),
        strength=jnp.asarray(1.0 if strength is None else strength, rows.dtype),
        prior_width=jnp.asarray(prior_width, rows.dtype),
        method=method,
    )


@frozen
class KeepApart:
    """See `keep_apart`."""

    score: object
    limits: jax.Array
    fade: jax.Array
    reach: float = static()
    spec: NeighborSpec | None = static(default=None)

    def fit(self, structure: Structure) -> KeepApart:
        """The same score with neighbour lists for structures like this one."""
        return replace(self, score=self.score.fit(structure), spec=neighbor_spec(structure, self.reach))

    def grown(self, info: dict) -> KeepApart:
        """The same score with capacities that suffice for what ``info`` reported."""
        return replace(self, score=self.score.grown(info), spec=grow(self.spec, info["needed_contacts"]))

    def __call__(self, structure: Structure, sigma):
        """Restrained score [n, 3]; info adds ``needed_contacts``."""
        score, info = self.score(structure, sigma)
        spec = neighbor_spec(structure, self.reach) if self.spec is None else self.spec
        graph = build(replace(structure, positions=structure.positions + sigma**2 * score), spec)
        species = jnp.maximum(structure.species, 0)
        overlap = jnp.maximum(self.limits[species[:, None], species[graph.neighbors]] - graph.distances, 0.0) * graph.mask
        unit = graph.displacements / jnp.maximum(graph.distances, 1e-3)[..., None]
        apart = -0.5 * jnp.sum(overlap[..., None] * unit, axis=1)
        weight = 1.0 / (1.0 + (sigma / self.fade) ** 4)
        return score + weight * apart / sigma**2, info | {"needed_contacts": graph.needed}


def keep_apart(score, minimum_distance, elements, *, fade: float = 0.4) -> KeepApart:
    """A score that parts atoms whose denoised estimates overlap: each of a pair at r < d_min moves by (d_min - r) / 2.

    Adds  -(1 / sigma^2) w(sigma) sum_j (d_min - r_ij)_+ / 2 u_ij  with w = 1 / (1 + (sigma / fade)^4): estimates at high noise are means, not atoms.

    Args:
      score: the score to restrain.
      minimum_distance: A, one number or a mapping of element pairs.
      elements: species order of the structures.
      fade: A.
    """
    limits = pair_matrix(minimum_distance, elements)
    return KeepApart(score=score, limits=jnp.asarray(limits, jnp.float32), fade=jnp.float32(fade), reach=float(max(limits.max(), 0.1)))
