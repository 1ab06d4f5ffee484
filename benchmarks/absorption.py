"""X-ray absorption: analytic EXAFS against FEFF8L, its cost, a surrogate to compare with, and copper-zirconium by g(r) with and without EXAFS.

    python benchmarks/absorption.py feff CELL EDGE [--legs 4] [--reach 5]      needs pip install ".[xas]"; one line per call, kept in the results
    python benchmarks/absorption.py cost                                       216 atoms of amorphous silicon, k^2 chi(k), value and gradient
    python benchmarks/absorption.py surrogate --out si-exafs.npz [--network specnet] [--minutes 10]     site EXAFS of silicon, learned
    python benchmarks/absorption.py cu-zr CELL [--prior cu-zr.npz] [--replicas 4]      total g(r) alone against g(r) + EXAFS of both edges

Results go to benchmarks/results/absorption.json.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import glassjax
from glassjax._pytree import replace
from glassjax.spectra import compute_spectra

HERE = Path(__file__).parent
OUT = HERE / "results" / "absorption.json"
K = np.arange(3.0, 12.01, 0.05)
R = np.linspace(0.08, 8.0, 100)


def keep(part: str, name: str, values: dict) -> None:
    """Add one result to the file and print it."""
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    found.setdefault(part, {})[name] = values
    OUT.write_text(json.dumps(found, indent=1))
    print(part, name, json.dumps(values), flush=True)


def relative(found, expected) -> float:
    """rms of the difference over rms of the reference."""
    return float(np.sqrt(np.sum((found - expected) ** 2) / np.sum(expected**2)))


def against_feff(arguments) -> None:
    """k^2 chi(k) averaged over all absorbers of a cell, 3 to 12 1/A, same cutoff (a step at 6 A; paths of more legs end at 5 A)."""
    s = glassjax.read_structures([arguments.cell], None)[0]
    element, edge = arguments.edge.split(":")
    common = dict(edge=arguments.edge, number_density=float(glassjax.number_density(s)), kweight=2, taper=0.0, rmax=arguments.reach)
    averages = {}
    for legs in dict.fromkeys((2, arguments.legs)):
        settings = glassjax.LabelSettings(element=element, edge=edge, reach=arguments.reach, legs=legs)
        found = glassjax.label([s], settings, cache=arguments.cache, workers=2)
        averages[legs] = K**2 * np.interp(K, found.k, np.nanmean(found.chi[0], axis=0))
        failed = len(found.failures)
    model = np.asarray(jax.jit(glassjax.exafs(K, s.symbols, **common).fit(s).__call__)(s))
    values = dict(atoms=len(s.symbols), absorbers=s.symbols.count(element), failed=failed, single=relative(model, averages[2]))
    if arguments.legs > 2:
        whole = averages[arguments.legs]
        several = np.asarray(jax.jit(glassjax.multiple_scattering(K, s.symbols, **common).fit(s).__call__)(s))
        values |= dict(
            feff_single_to_all=relative(averages[2], whole), single_to_all=relative(model, whole), multiple_to_all=relative(several, whole)
        )
    place = "" if arguments.reach == 6.0 else f" to {arguments.reach:g} A"
    keep("feff", f"{Path(arguments.cell).stem} {arguments.edge}{place}", values)


def fastest(function, argument, calls: int = 20) -> tuple[float, float]:
    """(fastest call, first call) in seconds."""
    started = time.perf_counter()
    jax.block_until_ready(function(argument))
    first, best = time.perf_counter() - started, np.inf
    for _ in range(calls):
        started = time.perf_counter()
        jax.block_until_ready(function(argument))
        best = min(best, time.perf_counter() - started)
    return best, first


def cost(arguments) -> None:
    """Value and gradient of sum (k^2 chi)^2, and the Jacobian that guidance takes."""
    from glassjax.neighbors import build

    cell = glassjax.read_structures([HERE / "data" / "silicon_targets.extxyz.gz"], None)[1]
    common = dict(edge="Si:K", number_density=float(glassjax.number_density(cell)), kweight=2)
    for name, make in (("single", glassjax.exafs), ("multiple", glassjax.multiple_scattering)):
        one = make(K, cell.symbols, **common).fit(cell)
        value = jax.jit(jax.value_and_grad(lambda p, one=one: jnp.sum(one(replace(cell, positions=p)) ** 2)))
        best, first = fastest(value, cell.positions)
        values = dict(seconds=best, first_call=first, atoms=len(cell.symbols), points=len(K), device=jax.devices()[0].device_kind)
        if name == "multiple":
            dense = jax.jit(lambda s, one=one: one.linearize(s, build(s, one.spec)))
            values["jacobian_seconds"] = fastest(dense, cell, 5)[0]
        keep("cost", name, values)


def site_chi(s, k) -> np.ndarray:
    """k^2 chi(k) [n, m] of every atom by the table of single scattering (taper as in `exafs`)."""
    from glassjax.feff import neighbourhood
    from glassjax.observables.exafs import TAPER, fade

    table, density = glassjax.find_table(("Si",), "Si", "K"), float(glassjax.number_density(s))
    rows = []
    for site in range(len(s.symbols)):
        r = np.linalg.norm(neighbourhood(s, site, table.reach)[0], axis=1)
        wave = np.imag(table.amplitude(k, r, "Si", density) * np.exp(2j * np.outer(k, r))) / r**2 * fade(r, table.reach, TAPER)
        rows.append(k * wave.sum(axis=1))
    return np.stack(rows)


def surrogate(arguments) -> None:
    """Train a network on site EXAFS of silicon cells, a third of them displaced by up to 0.8 A, and judge it on cells kept out."""
    from glassjax.surrogates.evaluation import evaluate
    from glassjax.surrogates.training import SurrogateOptions, default_network, train_surrogate

    k = np.arange(2.0, 14.01, 0.05)
    cells = glassjax.read_structures([HERE / "data" / "silicon_cells.extxyz.gz"], None)[::4]
    unseen = glassjax.read_structures([HERE / "data" / "silicon_targets.extxyz.gz"], None)[:2]
    rng = np.random.default_rng(0)
    shaken = []
    for i, one in enumerate(cells):
        noise = (0.0, 0.05, 0.15, 0.3, 0.5, 0.8)[i % 6]
        shaken.append(replace(one, positions=one.positions + jnp.asarray(noise * rng.normal(size=one.positions.shape), jnp.float32)))
    made = train_surrogate(
        shaken,
        [site_chi(s, k) for s in shaken],
        out=Path(arguments.out),
        elements=("Si",),
        absorber="Si",
        network=default_network(("Si",), arguments.network, 5.0),
        kind="exafs",
        edge="K",
        x=k,
        unit="1/A",
        options=SurrogateOptions(minutes=arguments.minutes, members=arguments.members, sigma_max=0.02),
        resume=Path(arguments.out).exists(),
        record=dict(note="k^2 chi(k) of single scattering by the shipped table", kweight=2),
        report=lambda step, seconds, losses: print(f"{seconds:.0f} s, step {step}: {losses}", flush=True),
    )
    keep("surrogate", arguments.network, evaluate(made, unseen, [site_chi(s, k) for s in unseen]))


def cu_zr_targets(cell):
    """Total g(r) (X-ray-like, Z weights) and k^2 chi of both edges of a cell."""
    from glassjax.targets import target

    density = float(glassjax.number_density(cell))
    symbols = cell.symbols
    total = glassjax.pair_distribution(R, symbols, weights="Z")
    curves = [total, *(glassjax.exafs(K, symbols, edge=edge, number_density=density) for edge in ("Cu:K", "Zr:K"))]
    y = [c[0] for c in compute_spectra([cell], curves)]
    g = target(R, y[0], symbols, function="g", weights="Z", number_density=density, name="g")
    common = dict(function="chi(k)", number_density=density, kmin=3.0, kmax=12.0)
    return g, [
        glassjax.absorption_target(K, chi, symbols, edge=edge, name=edge.replace(":", "_"), **common)
        for chi, edge in zip(y[1:], ("Cu:K", "Zr:K"), strict=True)
    ]


def copper_zirconium(arguments) -> None:
    """Errors of the partial g(r): mean over replicas of the mean absolute difference to the target cell's, and the mean curve's."""
    cell = glassjax.read_structures([arguments.cell], ["Cu", "Zr"])[arguments.frame]
    g, edges = cu_zr_targets(cell)
    pairs = [("Cu", "Cu"), ("Cu", "Zr"), ("Zr", "Zr")]
    made = [glassjax.pair_distribution(R, cell.symbols, partial=pair) for pair in pairs]
    reference = [c[0] for c in compute_spectra([cell], made)]
    card = json.loads(glassjax.load_prior(arguments.prior).card)
    for name, targets in (("prior", []), ("g", [g]), ("g+EXAFS", [g, *edges]), ("EXAFS", edges)):
        started = time.monotonic()
        common = dict(symbols=cell.symbols, number_density=float(glassjax.number_density(cell)), prior=arguments.prior, replicas=arguments.replicas)
        result = glassjax.invert(targets, **common) if targets else glassjax.generate(**common)
        curves = compute_spectra(result.structures, made)
        values = dict(
            replicas=len(result.structures),
            seconds=time.monotonic() - started,
            prior=str(arguments.prior),
            steps=card.get("steps"),
            start=card.get("start"),
        )
        values["shortest"] = float(min(glassjax.shortest_distance(s) for s in result.structures))
        last = result.ensemble.last("r_factor")
        values["r_factor"] = None if last is None else np.nanmean(last, axis=0).tolist()
        for pair, want, got in zip(pairs, reference, curves, strict=True):
            each = np.abs(got - want).mean(axis=1)
            values["-".join(pair)] = dict(mean=float(each.mean()), error=float(each.std(ddof=1) / np.sqrt(len(each))))
        keep("cu-zr", f"{Path(arguments.cell).stem}@{arguments.frame} {name}", values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    feff = parts.add_parser("feff")
    feff.add_argument("cell")
    feff.add_argument("edge")
    feff.add_argument("--legs", type=int, default=2)
    feff.add_argument("--reach", type=float, default=6.0, help="A, half the longest path, of FEFF and of the tables")
    feff.add_argument("--cache")
    feff.set_defaults(run=against_feff)
    parts.add_parser("cost").set_defaults(run=cost)
    learned = parts.add_parser("surrogate")
    learned.add_argument("--out", required=True)
    learned.add_argument("--network", choices=("invariant", "specnet"), default="specnet")
    learned.add_argument("--minutes", type=float, default=10.0)
    learned.add_argument("--members", type=int, default=2)
    learned.set_defaults(run=surrogate)
    alloy = parts.add_parser("cu-zr")
    alloy.add_argument("cell")
    alloy.add_argument("--frame", type=int, default=0)
    alloy.add_argument("--prior", default="cu-zr")
    alloy.add_argument("--replicas", type=int, default=4)
    alloy.set_defaults(run=copper_zirconium)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
