"""A guided score is a score: wrap a prior with data (`posterior`)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from glassjax._pytree import frozen, replace, static
from glassjax.inference import factors, infer
from glassjax.neighbors import NeighborSpec, build, grow, neighbor_spec
from glassjax.nuisance import Density
from glassjax.observables import histogram
from glassjax.observables.jacobian import PairRows, pair_rows
from glassjax.observables.pair import PairObservable
from glassjax.structure import Structure
from glassjax.targets import Target, chi_squared, r_factor


@frozen
class Posterior:
    """See `posterior`.

    Attributes:
      score: the score to guide.
      targets: the data, pair functions first; those share one pair pass.
      pairs: rows and slopes of the pair functions, or None.
      strength: 1 means as strong as the data say.
      prior_width: A, s0 in r_t^2 = sigma^2 / (1 + sigma^2 / s0^2).
      density: prior of an inferred number density, or None.
      order: place of each target in the user's list (static).
      method: "pseudo-inverse" or "gradient" (static).
      spec: neighbour list out to the farthest pair function (static).
    """

    score: object
    targets: tuple[Target, ...]
    pairs: PairRows | None
    strength: jax.Array
    prior_width: jax.Array
    density: Density | None
    order: tuple[int, ...] = static()
    method: str = static()
    spec: NeighborSpec | None = static(default=None)

    @property
    def _shared(self) -> int:
        """Number of targets that share the pair pass."""
        return sum(isinstance(t.observable, PairObservable) for t in self.targets)

    def fit(self, structure: Structure) -> Posterior:
        """The same score with neighbour lists for structures like this one."""
        spec = None if self.pairs is None else neighbor_spec(structure, self.pairs.reach)
        return replace(self, score=self.score.fit(structure), spec=spec, targets=tuple(t.fit(structure) for t in self.targets))

    def grown(self, info: dict) -> Posterior:
        """The same score with capacities that suffice for what ``info`` reported."""
        targets = list(self.targets)
        for index, target in enumerate(targets[self._shared :], start=self._shared):
            targets[index] = replace(target, observable=target.observable.grown(info[f"needed_target_{index}"]))
        spec = self.spec if self.pairs is None else grow(self.spec, info["needed_pairs"])
        return replace(self, score=self.score.grown(info), spec=spec, targets=tuple(targets))

    def __call__(self, structure: Structure, sigma):
        """Guided score [n, 3].

        info adds, per target in the user's order, ``r_factor``, ``chi_squared`` and ``share`` (of the norm of the guidance) of the denoised estimate;
        ``nuisance`` and ``nuisance_deviation`` (all parameters of all targets); with an inferred density ``density_change`` (of its logarithm) and
        ``density_deviation``; and what the neighbour lists needed.
        """
        score, info = self.score(structure, sigma)
        estimate = replace(structure, positions=structure.positions + sigma**2 * score)
        if self.method == "gradient":
            models, pushes, found = self._gradient(estimate, sigma)
        else:
            models, pushes, found = self._pseudo_inverse(estimate, sigma)
        pushes = jnp.stack([_held(t.observable, p, sigma) for t, p in zip(self.targets, pushes, strict=True)])
        push = jnp.where((structure.species >= 0)[:, None], jnp.sum(pushes, axis=0), 0.0)
        size = jnp.sqrt(jnp.sum(pushes**2, axis=(1, 2)))
        per_target = dict(
            r_factor=jnp.stack([r_factor(t, m) for t, m in zip(self.targets, models, strict=True)]),
            chi_squared=jnp.stack([chi_squared(t, m) for t, m in zip(self.targets, models, strict=True)]),
            share=size / jnp.maximum(jnp.sum(size), 1e-30),
        )
        return score + push, info | found | {key: value[jnp.array(self._places)] for key, value in per_target.items()}

    def _pseudo_inverse(self, estimate, sigma):
        """Models, the push of each target [targets, n, 3], info: (r_t^2 / sigma^2) J^T (C_y + r_t^2 J J^T)^-1 (y - F)."""
        curves, jacobian, strain, needed = self._linearize(estimate)
        scale = jnp.concatenate([jnp.sqrt(t.weight * self.strength) / t.uncertainty for t in self.targets])
        spread = sigma**2 / (1.0 + (sigma / self.prior_width) ** 2)
        started = factors(self.targets, [t.nuisance.start for t in self.targets])
        rows = jacobian.reshape(-1, jacobian.shape[-1]) * (scale * started)[None]
        system = jnp.eye(len(scale), dtype=rows.dtype) + spread * rows.T @ rows
        factor = (jnp.linalg.cholesky(system), True)
        values, found = infer(self.targets, self.density, self._places, estimate, curves, strain, scale=scale, factor=factor, spread=spread)
        models = [t.model(c, v) for t, c, v in zip(self.targets, curves, values, strict=True)]
        residual = jnp.concatenate([t.data - m for t, m in zip(self.targets, models, strict=True)]) * scale
        if "shift" in found:
            residual = residual - found.pop("shift")
        # the push in the units of the values found; the system keeps those of their start
        rows = rows * (factors(self.targets, values) / started)[None]
        pull = spread / sigma**2 * jax.scipy.linalg.cho_solve(factor, residual)
        pushes = jnp.stack([(rows[:, a:b] @ pull[a:b]).reshape(-1, 3) for a, b in self._ends()])
        return models, pushes, needed | found

    def _gradient(self, estimate, sigma):
        """Models, the push of each target, info: -(w / sum_c n_c) dL/dx0 with L = sum_c n_c^2, n_c the norm of target c's residual (the paper's)
        times the root of its weight."""
        curves, back, needed = jax.vjp(lambda p: self._curves(replace(estimate, positions=p)), estimate.positions, has_aux=True)
        strain = None
        if self.density is not None:
            _, _, strain, listed = self._linearize(estimate)
            needed = {key: jnp.maximum(value, listed[key]) for key, value in needed.items()}
        ones = jnp.concatenate([jnp.sqrt(t.weight) / t.uncertainty for t in self.targets])
        whole = (jnp.eye(len(ones), dtype=ones.dtype), True)
        spread = sigma**2 / (1.0 + (sigma / self.prior_width) ** 2)
        values, found = infer(self.targets, self.density, self._places, estimate, curves, strain, scale=ones, factor=whole, spread=spread)
        found.pop("shift", None)
        models = [t.model(c, v) for t, c, v in zip(self.targets, curves, values, strict=True)]
        residuals = [jnp.sqrt(t.weight) * (t.data - m) for t, m in zip(self.targets, models, strict=True)]
        norms = sum(jnp.sqrt(jnp.sum(r**2) + 1e-12) for r in residuals)
        pushes = []
        for index, (target, value, left) in enumerate(zip(self.targets, values, residuals, strict=True)):
            cotangent = [jnp.zeros_like(c) for c in curves]
            cotangent[index] = 2.0 * self.strength / norms * jnp.sqrt(target.weight) * left * target.nuisance.factor(target.observable.x, value)
            pushes.append(back(cotangent)[0])
        return models, jnp.stack(pushes), needed | found

    def _curves(self, estimate):
        """Curves per target, differentiable, and what the neighbour lists needed."""
        curves, needed, shared = [], {}, self._shared
        if shared:
            spec = neighbor_spec(estimate, self.pairs.reach) if self.spec is None else self.spec
            counts, needed["needed_pairs"] = histogram.pair_histogram(estimate, spec, self.pairs.points)
            curves = [t.observable.from_histogram(estimate, counts) for t in self.targets[:shared]]
        for index, target in enumerate(self.targets[shared:], start=shared):
            one = target.observable
            spec = one.listed(estimate)
            needed[f"needed_target_{index}"] = one.needed(estimate, build(jax.lax.stop_gradient(estimate), spec))
            curves.append(one(estimate))
        return curves, needed

    @property
    def _places(self) -> list[int]:
        """Where each target of the user's list stands among ``targets``."""
        return [self.order.index(i) for i in range(len(self.order))]

    def _ends(self) -> list[tuple[int, int]]:
        """First and last row of each target."""
        ends = [0]
        for target in self.targets:
            ends.append(ends[-1] + target.data.shape[0])
        return list(zip(ends[:-1], ends[1:], strict=True))

    def _linearize(self, estimate):
        """Curves per target, Jacobian [n, 3, m], derivative of the curves with the logarithm of the density [m], capacities needed."""
        curves, parts, strains, needed = [], [], [], {}
        shared = self._shared
        if shared:
            spec = neighbor_spec(estimate, self.pairs.reach) if self.spec is None else self.spec
            graph = build(estimate, spec)
            observables = [t.observable for t in self.targets[:shared]]
            curves, jacobian, strain = self.pairs.linearize(estimate, graph, observables, strained=self.density is not None)
            parts, strains, needed = [jacobian], [strain], {"needed_pairs": graph.needed}
        for index, target in enumerate(self.targets[shared:], start=shared):
            one = target.observable
            graph = build(estimate, one.listed(estimate))
            curve, jacobian, strain = one.linearize(estimate, graph)
            curves.append(curve)
            parts.append(jacobian)
            strains.append(strain)
            needed[f"needed_target_{index}"] = one.needed(estimate, graph)
        return curves, jnp.concatenate(parts, axis=-1), jnp.concatenate(strains) / -3.0, needed


def _held(one, push, sigma):
    """The push [n, 3] of one target, cut per atom where it moves the estimate farther than the observable's ``largest_move`` (A), if it has one."""
    if one.largest_move is None:
        return push
    move = sigma**2 * jnp.sqrt(jnp.sum(push**2, axis=1, keepdims=True) + 1e-20)
    return push * jnp.minimum(1.0, one.largest_move / move)


def posterior(
    score,
    targets: Target | Sequence[Target],
    *,
    strength: float | None = None,
    method: str = "pseudo-inverse",
    prior_width: float = 0.5,
    density: Density | None = None,
) -> Posterior:
    """A score guided by data.

    "pseudo-inverse" (Song et al., ICLR 2023): with x0 the denoised estimate, J = dF/dx0 and r_t^2 = sigma^2 / (1 + sigma^2 / s0^2),
        s_guide = (r_t^2 / sigma^2) J^T (C_y / strength + r_t^2 J J^T)^-1 (y - F(x0)).
    "gradient" (GLASS): s_guide = -(w / sum_c n_c) dL/dx0, L = sum_c n_c^2, n_c = |y_c - F_c(x0)|, with w = ``strength``, which depends on the
    units of the data (3000 for g(r) of silicon in the paper). No gradient runs through the network in either.

    Nuisance parameters of the targets, and the number density if ``density`` says so, are inferred at every step by the same linear algebra, with
    the structure's freedom counted as noise ("gradient": as if it had none).

    Args:
      score: the score to guide: a prior, or another wrapped score.
      targets: one target or several, of any kind.
      strength: 1 (default) is as strong as the data's uncertainties say; required for "gradient".
      method: see above.
      prior_width: s0, A.
      density: prior of the number density where it is inferred; a `breathe` sampler then scales the cell.

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
    order = sorted(range(len(targets)), key=lambda i: not isinstance(targets[i].observable, PairObservable))
    shared = [targets[i].observable for i in order if isinstance(targets[i].observable, PairObservable)]
    kind = jnp.result_type(float)
    return Posterior(
        score=score,
        targets=tuple(targets[i] for i in order),
        pairs=pair_rows(shared) if shared else None,
        strength=jnp.asarray(1.0 if strength is None else strength, kind),
        prior_width=jnp.asarray(prior_width, kind),
        density=density,
        order=tuple(order),
        method=method,
    )
