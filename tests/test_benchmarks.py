"""What the benchmarks count and name."""

import fnmatch
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import flops  # noqa: E402
import grid  # noqa: E402
import run  # noqa: E402


def test_matrix_products_are_counted_through_loops_and_gradients():
    """2 m n k each; three times in a scan of three; forward, and twice more backward; elementwise work is free."""
    a, b = jnp.ones((4, 5)), jnp.ones((5, 6))
    one = 2.0 * 4 * 5 * 6
    assert flops.matmul_flops(lambda a, b: jnp.tanh(a @ b), a, b) == one
    assert flops.matmul_flops(jax.jit(lambda a, b: jax.lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((4, 6)), length=3)[0]), a, b) == 3 * one
    assert flops.matmul_flops(jax.value_and_grad(lambda a, b: jnp.sum(a @ b), argnums=(0, 1)), a, b) == 3 * one
    assert flops.matmul_flops(lambda a, b: jnp.einsum("nij,njk->nik", a, b), jnp.ones((7, 4, 5)), jnp.ones((7, 5, 6))) == 7 * one


def test_every_pattern_names_rows():
    """Of the default selection and of gpu.sh; PyTorch has no equivariant network."""
    script = (BENCHMARKS / "gpu.sh").read_text()
    patterns = [*run.DEFAULT, *re.findall(r"'([a-z_]+[/*][^']*)'", script)]
    assert len(patterns) > len(run.DEFAULT) + 10
    for pattern in patterns:
        assert [name for name in run.ROWS if fnmatch.fnmatch(name, pattern)], pattern
    assert not [name for name in grid.names() if "torch" in name and "equivariant" in name]
