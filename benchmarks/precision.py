"""What lower precision of the network's matrix products costs in quality.

    python benchmarks/precision.py [--replicas 8] [--steps N] [--modes float32 tf32 bfloat16] [--out benchmarks/results/precision.json]

The operands of every product inside the prior are rounded to TF32 (10 bits of mantissa: what JAX does on NVIDIA GPUs by default) or bfloat16 (7 bits)
and multiplied with sums in float32, as matrix units do; products that ask for the highest precision (sums over edges) stay as they are. The guidance
stays float32. On any machine this gives the structures' quality, not a speed. Target: g(r) of a melt-quenched cell of silicon that the prior has not
seen (2.5 g/cm3), default protocol.
"""

import argparse
import contextlib
import json
from pathlib import Path

import jax
import jax._src.lax.lax as inner  # the one place that every product goes through
import numpy as np

import glassjax
from glassjax import segments
from glassjax._pytree import replace
from glassjax.archive import write_whole
from glassjax.observables import pair_distribution
from glassjax.priors.prior import Prior, load_prior

HERE = Path(__file__).parent
MANTISSA = {"float32": None, "tf32": 10, "bfloat16": 7}


@contextlib.contextmanager
def rounded(bits: int | None):
    """Round the operands of float32 products traced inside to ``bits`` of mantissa; counts them in the list that it gives."""
    exact, changed = inner.dot_general, []

    def product(a, b, *arguments, precision=None, **options):
        if a.dtype == b.dtype == np.float32 and "HIGHEST" not in str(precision).upper():
            changed.append(a.shape)
            a, b = (jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits) for x in (a, b))
        return exact(a, b, *arguments, precision=precision, **options)

    if bits is None:
        yield changed
        return
    inner.dot_general = jax.lax.dot_general = product
    try:
        yield changed
    finally:
        inner.dot_general = jax.lax.dot_general = exact


def forget() -> None:
    """Drop every trace and program: one made before knows nothing of the rounding, and one made with it would outlive it."""
    segments._programs.clear()
    jax.clear_caches()


def equations(jaxpr):
    """(equation, {variable: the equation that made it}) of every equation, inner functions included."""
    makers = {v: one for one in jaxpr.eqns for v in one.outvars}
    for one in jaxpr.eqns:
        yield one, makers
        for inside in jax.tree.leaves(list(one.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inside = getattr(inside, "jaxpr", inside)
            if hasattr(inside, "eqns"):
                yield from equations(inside)


def check_all_rounded(closed) -> None:
    """Raise unless the operands of every float32 product that does not ask for the highest precision come from a rounding."""
    products = [(one, makers) for one, makers in equations(closed.jaxpr) if one.primitive.name == "dot_general"]
    free = [(one, makers) for one, makers in products if "HIGHEST" not in str(one.params["precision"]).upper()]
    exact = [one for one, makers in free for v in one.invars if makers.get(v) is None or makers[v].primitive.name != "reduce_precision"]
    if exact or not free:
        raise RuntimeError(f"got {len(exact)} operands of {len(free)} products that are not rounded; needs none")


def score_error(prior, cell, sigma: float, bits: int | None) -> float:
    """rms of the score's change by rounding over its rms, of a cell with noise ``sigma`` (A)."""
    fitted = prior.fit(cell)
    noisy = replace(cell, positions=cell.positions + sigma * jax.random.normal(jax.random.key(0), cell.positions.shape))
    score = lambda s: fitted(s, np.float32(sigma))[0]  # noqa: E731
    forget()
    exact = np.asarray(jax.jit(score)(noisy))
    forget()
    with rounded(bits):
        if bits is not None:
            check_all_rounded(jax.make_jaxpr(score)(noisy))
        lower = np.asarray(jax.jit(score)(noisy))
    return float(np.sqrt(((lower - exact) ** 2).mean() / (exact**2).mean()))


def run(mode: str, cell, arguments) -> dict:
    """One inversion with products rounded inside the prior."""
    x = np.linspace(0.08, 8.0, 100)
    observable = pair_distribution(x, ["Si"]).fit(cell)
    data, density = np.asarray(observable(cell)), float(glassjax.number_density(cell))
    goal = glassjax.target(x, data, ["Si"], function="g", number_density=density)
    prior, call, products = load_prior("silicon"), Prior.__call__, []

    def lower(self, *given):
        with rounded(MANTISSA[mode]) as changed:
            made = call(self, *given)
        products.extend(changed)
        return made

    errors = {str(sigma): score_error(prior, cell, sigma, MANTISSA[mode]) for sigma in (0.05, 0.3, 1.0)}
    forget()
    Prior.__call__ = lower
    try:
        common = dict(composition="Si", atoms=len(cell.species), number_density=density, prior=prior, seed=0)
        result = glassjax.invert(goal, **common, replicas=arguments.replicas, steps=arguments.steps)
    finally:
        Prior.__call__ = call
    if MANTISSA[mode] and not products:
        raise RuntimeError("no product of the prior was rounded")
    gaps = [float(np.abs(np.asarray(observable(s)) - data).mean()) for s in result.structures]
    four = [float(np.mean(np.asarray(glassjax.coordination_numbers(s, 2.85)) == 4)) for s in result.structures]
    return dict(
        gap=float(np.mean(gaps)),
        gap_spread=float(np.std(gaps)),
        four=float(np.mean(four)),
        four_spread=float(np.std(four)),
        shortest=min(glassjax.shortest_distance(s) for s in result.structures),
        replicas=len(gaps),
        score_error=errors,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--steps", type=int, help="of the ladder (default: the protocol's)")
    parser.add_argument("--modes", nargs="+", default=list(MANTISSA), choices=MANTISSA)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "precision.json")
    arguments = parser.parse_args()
    cell = glassjax.io.read_structures([HERE / "data" / "silicon_targets.extxyz.gz"])[1]
    done = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for mode in arguments.modes:
        done[mode] = row = run(mode, cell, arguments)
        write_whole(arguments.out, json.dumps(done, indent=1).encode())
        four = f"{100 * row['four']:.1f} +- {100 * row['four_spread']:.1f} %"
        print(f"{mode:9} mean |dg| {row['gap']:.4f} +- {row['gap_spread']:.4f}  four-coordinated {four}")
        print("          score changed by " + ", ".join(f"{100 * e:.2f} % at {s} A" for s, e in row["score_error"].items()), flush=True)


if __name__ == "__main__":
    main()
