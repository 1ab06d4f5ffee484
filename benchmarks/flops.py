"""Floating-point operations of matrix products, counted from the traced program: XLA's own count takes the body of a loop once."""

from __future__ import annotations

import math
import time


def matmul_flops(function, *arguments) -> float:
    """2 x multiply-adds of every matrix product that function(*arguments) makes, loops of known length unrolled. Elementwise work is not counted."""
    import jax

    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * inner * math.prod(equation.outvars[0].aval.shape)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(_count(one) for one in _inner(equation.params))
    return total


def _inner(parameters):
    """The programs inside an equation; of the branches of a condition all."""
    for value in parameters.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns"):
                yield one
            elif hasattr(one, "jaxpr") and hasattr(one.jaxpr, "eqns"):
                yield one.jaxpr


def matmul_rate(seconds: float = 1.0) -> float:
    """FLOP/s of a large float32 matrix product on this machine, the best of several sizes."""
    import jax
    import jax.numpy as jnp

    best = 0.0
    for size in (1024, 2048, 4096):
        a = jnp.ones((size, size), jnp.float32)
        product = jax.jit(lambda x, y: jax.numpy.matmul(x, y, precision="highest")).lower(a, a).compile()
        jax.block_until_ready(product(a, a))
        spent, begun = [], time.perf_counter()
        while time.perf_counter() - begun < seconds / 3 or not spent:
            start = time.perf_counter()
            jax.block_until_ready(product(a, a))
            spent.append(time.perf_counter() - start)
        best = max(best, 2.0 * size**3 / min(spent))
    return best
