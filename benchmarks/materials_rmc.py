"""Reverse Monte Carlo for the benchmark over five materials: atoms moved one by one at random, by PyPI's reverse-monte-carlo.

It is imported as ``rmc`` (extra [bench]). Targets are total, number-weighted g(r) of Gaussian width 0.15 A. The paper's own reverse Monte Carlo was
fullrmc: it runs only in an environment of its own (Python 3.9, cython<3, numpy<1.24) and made 1,500 moves/s where this package made 22,000 (216
atoms, a minimum distance, busy cores). Moved downhill only, both end alike (``fullrmc_check.py``). The paper's move budget is in its supplement,
which could not be had; the main text (arXiv:2603.23210) does not say. So ``moves`` has no default.

What was found of reverse-monte-carlo 1.0.3 (its curves against plain numpy and its sources on GitHub), and what is done about it:

* Its g(r) is a histogram with all species in one: right for number weights without more. It has no broadening, so the target is first deconvolved
  to bins (`unbroadened`: the counts, not negative, whose broadened curve is the target); fitting the broadened curve with bins would give peaks
  that are broadened twice.
* N points from r_0 to r_last make N bins of (r_last - r_0) / N, normalised by shells of the points' spacing. With r_0 = 0 that is a factor
  (N / (N - 1))^3 for all bins, which its number density takes up: the curve is then g - 1 exactly.
* ``set_grid`` leaves the target without effect (chi^2 is 0 and every move is accepted), so it is not used.
* chi^2 is taken after the computed curve is scaled to fit the target best, always. The empty bins below the first peak (-1 in both) hold that
  factor at 1; it is returned as ``scale``.
* It sees minimum images only, so the fit ends at half the cell: 7.1 to 8 A for silicon, 5.4 to 7.1 A for carbon, 8 A elsewhere. The periodic copies
  could be moved as one group of a supercell of eight cells; that was exact and made 460 moves/s.
* A minimum distance is a limit that a move may not worsen, and costs two thirds of the moves per second (47,000 are left at 216 atoms, 20,000 at
  500; idle core).
"""

from __future__ import annotations

import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from materials_reference import Condition
from materials_starts import Distances, limits_of, starting_cell

import glassjax
from glassjax._pytree import replace
from glassjax.structure import Structure

WIDTH = 0.15  # A, of the target's Gaussians
TAIL = 5.0  # widths
BIN = 0.08  # A
SIGMAS = (0.1, 0.01)  # of a bin of g, from which to which the annealing goes
QUENCH = 0.15  # of the budget, downhill only
ACCEPTANCE = (0.3, 0.5)
STEPS = (0.05, 1.0)  # A, least and largest step of an atom


def _curve(x, g) -> tuple[np.ndarray, np.ndarray]:
    x, g = np.asarray(x, dtype=float), np.asarray(g, dtype=float)
    if x.ndim != 1 or x.shape != g.shape or len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(g).all()):
        raise ValueError(f"got x of shape {x.shape} and g of shape {g.shape}; needs two columns of finite numbers of equal length")
    if x[0] <= 0 or (np.diff(x) <= 0).any():
        raise ValueError("got r that is not ascending from above 0; needs ascending r in A; sort the columns")
    return x, g


def fit_of(structure: Structure, x, g) -> dict:
    """How well the broadened g(r) of a structure fits: R-factor and mean |dg|; and its shortest distance, A."""
    from glassjax.spectra import compute_spectra

    model = compute_spectra([structure], [glassjax.pair_distribution(x, structure.symbols, width=WIDTH)])[0][0]
    return dict(
        r_factor=float(np.sqrt(np.sum((g - model) ** 2) / np.sum((g - 1.0) ** 2))),
        mean_abs_dg=float(np.abs(g - model).mean()),
        shortest=glassjax.shortest_distance(structure),
    )


def unbroadened(x, g, number_density: float, edges, *, nearest: float = 0.0, width: float = WIDTH, rounds: int = 500) -> tuple[np.ndarray, float]:
    """g in bins [m] that a broadened g(r) came from: g(x_k) = 1 / (4 pi x_k^2 rho0) int n(d) N(x_k; d, width) dd with n(d) >= 0.

    Richardson and Lucy's iteration on n, constant in each bin; it starts from the broadened g and never makes a count negative. Bins go on with the
    same width until they are out of reach of the last x.

    Args:
      x, g: [k] the broadened total, r in A.
      number_density: rho0, atoms per A^3.
      edges: [m + 1] edges of equal bins from 0, A.
      nearest: A, bins that end below it stay empty.
      width: A.
      rounds: of the iteration.

    Returns:
      g in bins [m], and the mean |dg| between the target and what the bins, broadened, give.
    """
    x, g = _curve(x, g)
    edges = np.asarray(edges, dtype=float)
    size = edges[1] - edges[0]
    more = max(0, int(np.ceil((x[-1] + TAIL * width - edges[-1]) / size)))
    longer = np.concatenate([edges, edges[-1] + size * np.arange(1, more + 1)])
    lower, upper = longer[:-1], longer[1:]
    shells = 4 * np.pi / 3 * (upper**3 - lower**3) * number_density
    inside = lower[:, None] + size * (np.arange(8) + 0.5) / 8
    spread = np.exp(-0.5 * ((x[:, None, None] - inside) / width) ** 2).mean(axis=2) / (np.sqrt(2 * np.pi) * width)
    counts = np.interp(0.5 * (lower + upper), x, np.maximum(g, 1e-6)) * shells * (upper > nearest)
    wanted = np.maximum(g, 0.0) * 4 * np.pi * x**2 * number_density
    reach = np.maximum(spread.sum(axis=0), 1e-12)
    for _ in range(rounds):
        counts = counts * (spread.T @ (wanted / np.maximum(spread @ counts, 1e-12))) / reach
    left = float(np.abs((spread @ counts - wanted) / (4 * np.pi * x**2 * number_density)).mean())
    return (counts / shells)[: len(edges) - 1], left


def histogram_of(structure: Structure, edges) -> np.ndarray:
    """Total number-weighted g in bins [m] of a cubic cell, nearest images only; ``edges`` [m + 1] from 0 to half the cell at most, A."""
    positions, length = np.asarray(structure.positions, dtype=float), float(structure.cell[0, 0])
    counts = np.zeros(len(edges) - 1)
    for index, own in enumerate(positions[:-1]):
        apart = positions[index + 1 :] - own
        apart -= length * np.round(apart / length)
        counts += np.histogram(np.linalg.norm(apart, axis=1), edges)[0]
    shells = 4 * np.pi / 3 * np.diff(np.asarray(edges) ** 3) / length**3
    return 2 * counts / (shells * len(positions) ** 2)


def import_rmc():
    try:
        import rmc
    except ImportError as error:
        raise ImportError("this baseline needs reverse-monte-carlo (Python 3.11 to 3.14, Linux): pip install 'glassjax[bench]'") from error
    return rmc


def half_cell_bins(length: float, last: float) -> np.ndarray:
    """Edges of bins of about 0.08 A from 0 to ``last`` or half the edge of the cubic cell, the smaller, A."""
    end = min(last, 0.5 * length)
    return np.linspace(0.0, end, round(end / BIN) + 1)


def rmc_engine(structure: Structure, edges, binned, *, limits: Distances, seed: int = 0):
    """An engine of reverse-monte-carlo that fits the histogram of a cubic cell to ``binned`` [m] (g in bins of ``edges`` [m + 1]).

    The curve it computes is g - 1, at most half the cell away; limits are minimum distances, A.
    """
    rmc = import_rmc()
    cell = np.asarray(structure.cell, dtype=float)
    positions = np.asarray(glassjax.wrap(structure).positions, dtype=float)
    engine = rmc.Engine(rmc.AtomicStructure(np.ascontiguousarray(positions), list(structure.symbols)), rmc.PeriodicBC(cell.T))
    bins = len(edges) - 1
    pairs = rmc.PairCorrelationConstraint()
    pairs.set_experimental_data(np.column_stack([np.linspace(0.0, edges[-1], bins), np.asarray(binned) - 1.0]))
    # shells are those of the points' spacing, (m / (m - 1))^3 times the bins'
    pairs.set_number_density(len(positions) / abs(np.linalg.det(cell)) * ((bins - 1) / bins) ** 3)
    pairs.set_elements(engine.structure)
    engine.add_constraint(pairs)
    apart = rmc.IntraMolecularDistanceConstraint()
    apart.set_structure(engine.structure)
    for (a, b), value in limits.items():
        apart.set_minimum_distance(a, b, value)
    engine.add_constraint(apart)
    engine.set_selector(rmc.RandomSelector(seed=seed % 2**32))
    return engine


def rmc_curve(engine) -> np.ndarray:
    """g in bins [m] as an engine of `rmc_engine` computed it last, for a move that it may have rejected."""
    found = next(c for c in engine.constraints if c.name == "PairCorrelationConstraint")
    return np.array(found.concrete().computed) + 1.0


def reverse_monte_carlo(
    condition: Condition,
    x,
    g,
    *,
    start: str | Structure = "random",
    seconds: float | None = None,
    moves: int | None = None,
    seed: int = 0,
    minimum_distances: Distances | None = None,
    cache: Path | None = None,
):
    """Fit atoms to a g(r) by moves of one atom at a time, accepted by exp(-(chi^2_new - chi^2_old) / 2 sigma^2), chi^2 = sum_bins (g - g_target)^2.

    sigma falls geometrically from 0.1 to 0.01 and is 0 for the last 15 % of the budget; the largest step is adapted to accept 30 to 50 % of the
    moves (0.05 to 1 A: shorter ones do not leave their bins). What the package cannot do is said at the top of this file. With ``seconds`` the
    result depends on the machine; with ``moves`` alone on ``seed`` alone.

    Args:
      condition: symbols and density.
      x: [k] r of the target, A.
      g: [k] total number-weighted g(r) of width 0.15 A.
      start: "random", "liquid" (see `starting_cell`), or a cubic structure.
      seconds: wall-clock budget of the moves.
      moves: budget of moves tried. Where both are given, the run goes on until both are spent.
      seed: of the start and of the moves.
      minimum_distances: A per pair of elements; by default `glassjax.minimum_distances`; `closest_distances` makes those of the benchmark.
      cache: folder of liquids.

    Returns:
      ``ase.Atoms`` and a dict: moves, accepted, seconds (of the moves, wall-clock), cpu_seconds, moves_per_second; chi2_start and chi2 (as above),
      scale (which the package's own chi^2 takes freely), rmax (how far the fit goes, A), step (the last, A); r_factor and mean_abs_dg of the
      broadened g(r) up to the last x; deconvolution (mean |dg| of the target that the bins stand for), shortest, A.

    Raises:
      ImportError: without reverse-monte-carlo.
      ValueError: no budget, another start, columns that are no curve, or a cell that is not cubic.
    """
    x, g = _curve(x, g)
    if seconds is None and moves is None:
        raise ValueError("got no budget; needs seconds, moves, or both (then the run goes on until both are spent)")
    if any(value is not None and not value > 0 for value in (seconds, moves)):
        raise ValueError(f"got seconds = {seconds} and moves = {moves}; needs positive numbers")
    rmc = import_rmc()
    limits = limits_of(condition, minimum_distances)
    if isinstance(start, str):
        start = starting_cell(condition, start, seed=seed, minimum_distances=limits, cache=cache)
    cell = np.asarray(start.cell, dtype=float)
    if not np.allclose(cell, cell[0, 0] * np.eye(3), atol=1e-4):
        raise ValueError(f"got a cell {cell.tolist()}; needs a cubic one: the package counts nearest images, right to half of its edge only")
    density = len(start.symbols) / cell[0, 0] ** 3
    edges = half_cell_bins(cell[0, 0], x[-1])
    target, misfit = unbroadened(x, g, density, edges, nearest=min(limits.values()))
    engine = rmc_engine(start, edges, target, limits=limits, seed=seed)
    step, draws, chunk, done = 0.2, np.random.default_rng(seed), 10 * len(start.symbols), 0.0
    begun, busy = time.perf_counter(), time.process_time()
    while done < 1.0:
        cooled = min(done / (1.0 - QUENCH), 1.0)
        sigma = SIGMAS[0] * (SIGMAS[1] / SIGMAS[0]) ** cooled
        sampler = rmc.MetropolisSampler(2 * sigma**2) if cooled < 1.0 else rmc.GreedySampler()
        first, second = (int(n) for n in draws.integers(2**31, size=2))
        engine.set_sampler(sampler, seed=first)
        engine.build_atomic_groups(0.0, step, seed=second)
        ahead = chunk if seconds is not None else min(chunk, moves - engine.steps_total)
        before = engine.steps_accepted
        engine.run(ahead)
        share = (engine.steps_accepted - before) / ahead
        if not ACCEPTANCE[0] <= share <= ACCEPTANCE[1]:
            step = float(np.clip(step * (1.25 if share > ACCEPTANCE[1] else 0.8), *STEPS))
        spent = time.perf_counter() - begun
        done = min(1.0 if seconds is None else spent / seconds, 1.0 if moves is None else engine.steps_total / moves)
    cpu = time.process_time() - busy
    made = np.array(engine.structure.coordinates)
    structure = replace(start, positions=jnp.asarray(made, start.positions.dtype))
    first, last = histogram_of(start, edges), histogram_of(structure, edges)
    record = dict(
        moves=int(engine.steps_total),
        accepted=int(engine.steps_accepted),
        seconds=spent,
        cpu_seconds=cpu,
        moves_per_second=engine.steps_total / spent,
        chi2_start=float(np.sum((first - target) ** 2)),
        chi2=float(np.sum((last - target) ** 2)),
        scale=float((last - 1) @ (target - 1) / ((last - 1) @ (last - 1))),
        rmax=float(edges[-1]),
        step=step,
        deconvolution=misfit,
    )
    return glassjax.to_atoms(structure), record | fit_of(structure, x, g)
