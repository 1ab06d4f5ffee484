"""Nuisance parameters and the number density of one denoising step: the posterior mean of a linear model, with the structure counted as noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from glassjax.observables.pair import REAL_SPACE, RECIPROCAL
from glassjax.structure import number_density
from glassjax.targets import Target

ITERATIONS = 4  # Gauss-Newton steps per score: damping, and the shift of an edge, are not linear


def factors(targets, values) -> jax.Array:
    """d model / d curve [m] over all targets at nuisance ``values`` per target."""
    return jnp.concatenate([t.nuisance.factor(t.observable.x, v) for t, v in zip(targets, values, strict=True)])


def infer(targets, density, places, estimate, curves, strain, *, scale, factor, spread):
    """Nuisance values per target and what to report: the posterior mean of the linearised model, Gauss-Newton, inside the bounds.

    The structure's own freedom is part of the noise (``factor``: Cholesky of 1 + r_t^2 J J^T), so that a parameter is moved only by what atoms
    cannot explain. The estimate is a mean over structures, whose curves are blurred by up to r_t^2 (``spread``): how much is inferred along
    with the parameters, so that a scale or a density is not bent to make up for it.
    """
    prior = [t.nuisance for t in targets]
    start, deviation, low, high = (jnp.concatenate([getattr(n, name) for n in prior]) for name in ("start", "deviation", "low", "high"))
    if density is not None:
        log = jnp.log(number_density(estimate))
        mean = jnp.log(density.start) - log
        edges = jnp.log(density.low) - log, jnp.log(density.high) - log
        start, deviation = jnp.append(start, mean), jnp.append(deviation, density.deviation)
        low, high = jnp.append(low, edges[0]), jnp.append(high, edges[1])
    if not len(start):
        return [n.start for n in prior], {}
    start, deviation = jnp.append(start, 0.0), jnp.append(deviation, spread)
    low, high = jnp.append(low, -jnp.inf), jnp.append(high, jnp.inf)
    blur = jnp.concatenate([blurring(t, c) for t, c in zip(targets, curves, strict=True)])
    data = jnp.concatenate([t.data for t in targets])
    sizes = [n.start.shape[0] for n in prior]

    def split(values):
        parts, at = [], 0
        for size in sizes:
            parts.append(values[at : at + size])
            at += size
        return parts

    def predicted(values):
        parts = split(values)
        model = jnp.concatenate([t.model(c, v) for t, c, v in zip(targets, curves, parts, strict=True)])
        if density is not None:
            model = model + factors(targets, parts) * strain * values[-2]
        return (model + factors(targets, parts) * blur * values[-1]) * scale

    values = jnp.clip(start, low, high)
    for _ in range(ITERATIONS):
        design = jax.jacfwd(predicted)(values)
        left = data * scale - predicted(values) + design @ (values - start)
        whitened = jax.scipy.linalg.cho_solve(factor, jnp.column_stack([design, left]))
        normal = deviation[:, None] * (design.T @ whitened) * jnp.append(deviation, 1.0)[None]
        covariance = jnp.linalg.inv(jnp.eye(len(start), dtype=normal.dtype) + normal[:, :-1])
        values = jnp.clip(start + deviation * (covariance @ normal[:, -1]), low, high)
    error = deviation * jnp.sqrt(jnp.maximum(jnp.diagonal(covariance), 0.0))
    parts = split(values)
    count = sum(sizes)
    listed = [jnp.concatenate([split(v)[i] for i in places]) for v in (values[:count], error[:count])]
    found = dict(nuisance=listed[0], nuisance_deviation=listed[1])
    if density is not None:
        shift = factors(targets, parts) * strain * values[-2] * scale
        found |= dict(density_change=values[-2], density_deviation=error[-2], shift=shift)
    return parts, found


def blurring(target: Target, curve: jax.Array) -> jax.Array:
    """d curve / du [m] when every pair is blurred by a Gaussian of variance 2u: -Q^2 (f - level) in Q, -4 k^2 f in k, the second derivative in r,
    else zero."""
    x = target.observable.x
    if target.observable.function == "chi(k)":
        return -4.0 * x**2 * curve
    if target.observable.function in RECIPROCAL:
        return -(x**2) * (curve - target.reference)
    if target.observable.function in REAL_SPACE:
        slope = jnp.gradient(curve - target.anchor, x)
        return jnp.gradient(slope, x)
    return jnp.zeros_like(curve)
