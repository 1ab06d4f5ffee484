"""Building blocks that the score networks share: aggregation on jraph graphs, radial and angular functions, noise-level features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jraph
import numpy as np


def aggregate(values: jax.Array, graph: jraph.GraphsTuple, *, dense: bool) -> jax.Array:
    """Sum edge ``values`` [e, ...] at their receivers -> [n, ...].

    ``dense=True`` promises what `Graph.to_jraph` makes (equally many edges per receiver, ordered by receiver) and turns the sum into a
    reduction; otherwise `jraph.segment_sum` is used.
    """
    n = jax.tree.leaves(graph.nodes)[0].shape[0]
    if dense:
        return values.reshape(n, -1, *values.shape[1:]).sum(axis=1)
    return jraph.segment_sum(values, graph.receivers, n)


def receive(values: jax.Array, graph: jraph.GraphsTuple, *, dense: bool) -> jax.Array:
    """Node ``values`` [n, ...] at each edge's receiver -> [e, ...] (a broadcast when ``dense``)."""
    if dense:
        n = values.shape[0]
        k = graph.receivers.shape[0] // n
        wide = jnp.broadcast_to(values[:, None], (n, k, *values.shape[1:]))
        return wide.reshape(n * k, *values.shape[1:])
    return values[graph.receivers]


def envelope(distances: jax.Array, cutoff: float) -> jax.Array:
    """Smooth cutoff (1 - x)^3 (1 + 3x + 6x^2), x = r / cutoff: 1 at 0, zero with two derivatives at the cutoff; 0 beyond."""
    x = jnp.clip(distances / cutoff, 0.0, 1.0)
    return (1.0 - x) ** 3 * (1.0 + 3.0 * x + 6.0 * x**2)


def radial_basis(distances: jax.Array, cutoff: float, count: int) -> jax.Array:
    """Gaussians [..., count] on centres from 0.4 A to the cutoff, as wide as their spacing."""
    centres = jnp.linspace(0.4, cutoff, count, dtype=distances.dtype)
    spacing = (cutoff - 0.4) / (count - 1)
    return jnp.exp(-0.5 * ((distances[..., None] - centres) / spacing) ** 2)


def spherical_harmonics(unit: jax.Array, lmax: int) -> jax.Array:
    """Real solid harmonics of unit vectors [..., 3] for l = 1..lmax -> [..., lmax (lmax + 2)], scaled so that Y_l(u) . Y_l(v) = P_l(u . v).

    Raises:
      ValueError: lmax is not 1, 2 or 3.
    """
    if lmax not in (1, 2, 3):
        raise ValueError(f"lmax is {lmax}; needs 1, 2 or 3")
    x, y, z = unit[..., 0], unit[..., 1], unit[..., 2]
    parts = [x, y, z]
    if lmax >= 2:
        r3 = 3.0**0.5
        parts += [r3 * x * y, r3 * y * z, 1.5 * z * z - 0.5, r3 * x * z, 0.5 * r3 * (x * x - y * y)]
    if lmax >= 3:
        a, b, c = 0.625**0.5, 15.0**0.5, 0.375**0.5
        parts += [
            a * y * (3 * x * x - y * y),
            b * x * y * z,
            c * y * (5 * z * z - 1),
            0.5 * z * (5 * z * z - 3),
            c * x * (5 * z * z - 1),
            0.5 * b * z * (x * x - y * y),
            a * x * (x * x - 3 * y * y),
        ]
    return jnp.stack(parts, axis=-1)


def gaussian_features(value: jax.Array, width: int, *, seed: int = 0) -> jax.Array:
    """Random Fourier features [cos 2 pi v B, sin 2 pi v B] with fixed B ~ N(0, 1) -> [width] (Tancik et al., NeurIPS 2020)."""
    frequencies = jnp.asarray(np.random.default_rng(seed).normal(size=width // 2), dtype=value.dtype)
    phase = 2.0 * jnp.pi * value * frequencies
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])
