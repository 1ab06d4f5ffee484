"""Building blocks that the score networks share: aggregation on jraph graphs, radial and angular functions, noise-level features."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

BLOCK = 2048  # edges per block, see `by_blocks`


def _sum_rows(values: jax.Array, index: jax.Array, table: jax.Array) -> jax.Array:
    """Sum of ``values`` [e, ...] at the nodes ``index`` [e] -> [n, ...]; ``table`` [n, k] names each node's rows (-1: none); rows that it does
    not name must be zero.

    On a CPU whole rows are scattered, elsewhere gathered: scattering there depends on the order in which threads arrive.
    """
    if jax.default_backend() == "cpu":
        return jax.ops.segment_sum(values, index, table.shape[0])
    wanted = (table >= 0).reshape(*table.shape, *[1] * (values.ndim - 1))
    return jnp.sum(jnp.where(wanted, values[jnp.maximum(table, 0)], 0.0), axis=1)


@jax.custom_vjp
def _spread(values, index, table):
    """values[index]; the backward pass sums the rows that ``table`` names."""
    return values[index]


def _spread_backward(residual, cotangent):
    index, table = residual
    return _sum_rows(cotangent.reshape(-1, *cotangent.shape[index.ndim :]), index.reshape(-1), table), None, None


_spread.defvjp(lambda values, index, table: (values[index], (index, table)), _spread_backward)


@jax.custom_vjp
def _sum_at(values, index, table):
    """Sum edge ``values`` at the nodes ``index``; the backward pass gathers."""
    return _sum_rows(values, index, table)


_sum_at.defvjp(lambda values, index, table: (_sum_rows(values, index, table), index), lambda index, cotangent: (cotangent[index], None, None))


def edge_rows(values: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """Edge ``values`` [e, ...] as [r, k, ...]: a row per atom where the graph is laid out so (``Graph.to_jraph(rows=True)``), else a row per edge."""
    if "filled" in graph.nodes:
        return values.reshape(*graph.nodes["filled"].shape, *values.shape[1:])
    return values[:, None]


def to_rows(values, graph: jraph.GraphsTuple):
    """Atoms' values (a tree of [n, ...]) for each row of edges."""
    return values if "filled" in graph.nodes else jax.tree.map(lambda one: one[graph.receivers], values)


def to_atoms(values: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """Sum over the rows [r, ...] of each atom [n, ...]."""
    return values if "filled" in graph.nodes else jraph.segment_sum(values, graph.receivers, graph.nodes["species"].shape[0])


def aggregate(values: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """Sum edge ``values`` [e, ...] at their receivers -> [n, ...].

    Edges in rows are summed row by row. Where the nodes carry ``incoming`` (as `Graph.to_jraph` makes them) sums and gradients are fast and
    reproducible, otherwise this is `jraph.segment_sum`. Empty slots must hold zeros, unless the edges are in rows.
    """
    if "filled" in graph.nodes:
        filled = graph.nodes["filled"]
        return jnp.sum(jnp.where(filled.reshape(*filled.shape, *[1] * (values.ndim - 1)), edge_rows(values, graph), 0.0), axis=1)
    if "incoming" in graph.nodes:
        return _sum_at(values, graph.receivers, graph.nodes["incoming"])
    return jraph.segment_sum(values, graph.receivers, graph.nodes["species"].shape[0])


def receive(values: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """Node ``values`` [n, ...] at each edge's receiver -> [e, ...]."""
    if "incoming" in graph.nodes:
        return _spread(values, graph.receivers, graph.nodes["incoming"])
    return values[graph.receivers]


def send(values: jax.Array, senders: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """Node ``values`` [n, ...] at the senders [...] of edges: on GPUs all of the graph where it carries ``outgoing``, else any."""
    if "outgoing" in graph.nodes and jax.default_backend() != "cpu":
        return _spread(values, senders, graph.nodes["outgoing"])
    return values[senders]


def leave(values: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
    """Sum edge ``values`` [e, ...] at their senders -> [n, ...]; the nodes must carry ``outgoing``."""
    return _sum_rows(values, graph.senders, graph.nodes["outgoing"])


def by_blocks(function, rows, graph: jraph.GraphsTuple):
    """function(rows) -> [r, ...] over blocks of the rows of a tree of arrays, so that on a CPU what a block makes stays in cache; gradients make it
    again.

    The last block overlaps the one before where the rows are no multiple of it. GPUs take all rows at once.
    """
    count, slots = jax.tree.leaves(rows)[0].shape[:2]
    block = max(1, BLOCK // slots)
    block = -(-count // -(-count // block))  # as equal as can be
    if jax.default_backend() != "cpu":
        return function(rows)
    if "outgoing" in graph.nodes:
        function = jax.checkpoint(function)
    if block >= count:
        return function(rows)
    starts = np.minimum(np.arange(0, count, block), count - block).astype(np.int32)
    piece = lambda start: jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, block), rows)  # noqa: E731
    like = jax.eval_shape(function, piece(0))

    def step(total, start):
        return jax.lax.dynamic_update_slice_in_dim(total, function(piece(start)), start, axis=0), None

    return jax.lax.scan(step, jnp.zeros((count, *like.shape[1:]), like.dtype), jnp.asarray(starts))[0]


@jax.custom_vjp
def matmul(x, w):
    """x [..., in] @ w [in, out] for many rows; the gradient of w is summed over blocks of rows, which on CPU avoids a transposed copy."""
    return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], -1)


def _matmul_backward(residual, cotangent):
    x, w = residual
    rows = math.prod(x.shape[:-1])
    parts = next(p for p in (16, 8, 4, 2, 1) if rows % p == 0)

    def accumulate(total, pair):
        return total + pair[0].T @ pair[1], None

    pairs = (x.reshape(parts, rows // parts, -1), cotangent.reshape(parts, rows // parts, -1))
    gradient, _ = jax.lax.scan(accumulate, jnp.zeros_like(w), pairs)
    return cotangent @ w.T, gradient


matmul.defvjp(lambda x, w: (matmul(x, w), (x, w)), _matmul_backward)


class EdgeDense(nn.Module):
    """Weights of a linear layer of edge features, to be applied where it costs least: (kernel [in, width], bias [width] or None).

    Attributes:
      width: output width.
      use_bias: make a bias.
    """

    width: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: int):
        """The weights for so many inputs."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (inputs, self.width), jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32) if self.use_bias else None


def envelope(distances: jax.Array, cutoff: float) -> jax.Array:
    """Smooth cutoff (1 - x)^3 (1 + 3x + 6x^2), x = r / cutoff: 1 at 0, zero with two derivatives at the cutoff; 0 beyond."""
    x = jnp.clip(distances / cutoff, 0.0, 1.0)
    return (1.0 - x) ** 3 * (1.0 + 3.0 * x + 6.0 * x**2)


def radial_basis(distances: jax.Array, cutoff: float, count: int) -> jax.Array:
    """Gaussians [..., count] on centres from 0.4 A to the cutoff, as wide as their spacing."""
    centres = jnp.linspace(0.4, cutoff, count, dtype=distances.dtype).reshape(*(1,) * distances.ndim, count)
    spacing = (cutoff - 0.4) / (count - 1)
    return jnp.exp(-0.5 * ((distances[..., None] - centres) / spacing) ** 2)


def spherical_harmonics(unit: jax.Array, lmax: int) -> list[jax.Array]:
    """Real spherical harmonics of unit vectors [..., 3], a list of [..., 2l + 1] for l = 1..lmax, scaled so that Y_l(u) . Y_l(v) = P_l(u . v).

    Raises:
      ValueError: lmax is not 1, 2 or 3.
    """
    if lmax not in (1, 2, 3):
        raise ValueError(f"lmax is {lmax}; needs 1, 2 or 3")
    x, y, z = unit[..., 0], unit[..., 1], unit[..., 2]
    parts = [[x, y, z]]
    if lmax >= 2:
        r3 = 3.0**0.5
        parts.append([r3 * x * y, r3 * y * z, 1.5 * z * z - 0.5, r3 * x * z, 0.5 * r3 * (x * x - y * y)])
    if lmax >= 3:
        a, b, c = 0.625**0.5, 15.0**0.5, 0.375**0.5
        seven = [
            a * y * (3 * x * x - y * y),
            b * x * y * z,
            c * y * (5 * z * z - 1),
            0.5 * z * (5 * z * z - 3),
            c * x * (5 * z * z - 1),
            0.5 * b * z * (x * x - y * y),
            a * x * (x * x - 3 * y * y),
        ]
        parts.append(seven)
    return [jnp.stack(part, axis=-1) for part in parts]


def shortened(values: jax.Array, longest: float, axis: int = 1) -> jax.Array:
    """``values`` with vectors along ``axis`` that are longer than ``longest`` brought to that length; the others are left as they are, to the bit."""
    square = jnp.sum(values**2, axis=axis, keepdims=True)
    return jnp.where(square > longest**2, values * (longest * jax.lax.rsqrt(jnp.maximum(square, longest**2))), values)


def gaussian_features(value: jax.Array, width: int, *, seed: int = 0) -> jax.Array:
    """Random Fourier features [cos 2 pi v B, sin 2 pi v B] with fixed B ~ N(0, 1) -> [width] (Tancik et al., NeurIPS 2020)."""
    frequencies = jnp.asarray(np.random.default_rng(seed).normal(size=width // 2), dtype=value.dtype)
    phase = 2.0 * jnp.pi * value * frequencies
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])
