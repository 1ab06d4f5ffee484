"""The true entries of every row of a mask, side by side: neighbours of atoms out of candidates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def compact(near: jax.Array, capacity: int):
    """Columns of the first ``capacity`` true entries per row, without a scatter, which is serial on CPUs.

    Rows are packed into words of 32 bits: a binary search in the running count of the words, then one for the bit inside the word, by arithmetic.

    Returns:
      (columns [n, capacity], mask [n, capacity], number of true entries [n]).
    """
    n, width = near.shape
    bits = jnp.pad(near, ((0, 0), (0, -width % 32))).reshape(n, -1, 32).astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None, None]
    words = jnp.sum(bits, axis=-1, dtype=jnp.uint32)
    counts = jax.lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(counts, axis=1, dtype=jnp.int32)
    wanted = jnp.arange(1, capacity + 1, dtype=jnp.int32)
    found = jax.vmap(lambda row: jnp.searchsorted(row, wanted, side="left", method="scan_unrolled"))(ends)
    found = jnp.minimum(found, words.shape[1] - 1).astype(jnp.int32)
    rank = wanted[None, :] - jnp.take_along_axis(ends - counts, found, axis=1)
    word, place = jnp.take_along_axis(words, found, axis=1), 32 * found
    for half in (16, 8, 4, 2, 1):
        low = word & np.uint32(2**half - 1)
        before = jax.lax.population_count(low).astype(jnp.int32)
        above = rank > before
        rank = jnp.where(above, rank - before, rank)
        word = jnp.where(above, word >> np.uint32(half), low)
        place = jnp.where(above, place + half, place)
    degree = ends[:, -1]
    mask = wanted[None, :] <= degree[:, None]
    return jnp.where(mask, place, 0), mask, degree
