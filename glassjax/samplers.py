"""Samplers: one denoising step from noise level to noise level. They never know whether the score is guided.

A sampler has ``init(key, structure) -> state`` and ``step(key, state, score, sigma, sigma_next) -> (state, info)``; the state is the structure.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from glassjax._pytree import frozen, replace, static
from glassjax.neighbors import NeighborSpec, build, grow, neighbor_spec
from glassjax.structure import Structure, number_density, pair_matrix


class Sampler:
    """What every sampler is: pure ``init`` and ``step``; ``fit`` and ``grown`` where it keeps a neighbour list."""

    def init(self, key, structure: Structure) -> Structure:
        """The state before the first step: the structure itself."""
        return structure

    def fit(self, structure: Structure) -> Sampler:
        """The same sampler, ready for structures like this one."""
        return self

    def grown(self, info: dict) -> Sampler:
        """The same sampler with capacities that suffice for what ``info`` reported."""
        return self

    def densest(self, structure: Structure) -> Structure:
        """The densest structure that sampling can come to, for which neighbour lists are made: this one, unless the cell is scaled."""
        return structure

    def step(self, key, state, score, sigma, sigma_next):
        """One step."""
        raise NotImplementedError


def merge(info: dict, more: dict) -> dict:
    """Info of two score evaluations of one step: the largest capacities, and the latest of everything else."""
    return {key: jnp.maximum(info[key], value) if key.startswith("needed") else value for key, value in more.items()}


def _noise(key, structure: Structure) -> jax.Array:
    z = jax.random.normal(key, structure.positions.shape, structure.positions.dtype)
    return jnp.where((structure.species >= 0)[:, None], z, 0.0)


@frozen
class ReverseSDE(Sampler):
    """See `reverse_sde`."""

    ancestral: bool = static(default=False)

    def step(self, key, state, score, sigma, sigma_next):
        """One Euler-Maruyama (or ancestral) step."""
        value, info = score(state, sigma)
        variance = sigma**2 - sigma_next**2
        spread = variance * (sigma_next / sigma) ** 2 if self.ancestral else jnp.where(sigma_next > 0, variance, 0.0)
        return replace(state, positions=state.positions + variance * value + jnp.sqrt(spread) * _noise(key, state)), info


def reverse_sde(*, ancestral: bool = True) -> ReverseSDE:
    """Reverse variance-exploding SDE: x += (s_i^2 - s_{i+1}^2) score + spread z, no noise on a step to zero.

    ``ancestral=False`` is Euler-Maruyama as published, spread^2 = s_i^2 - s_{i+1}^2; ``ancestral=True`` uses the posterior variance of one step,
    spread^2 = (s_i^2 - s_{i+1}^2) s_{i+1}^2 / s_i^2 (Song et al., ICLR 2021, appendix F), which needs fewer steps.
    """
    return ReverseSDE(ancestral=bool(ancestral))


@frozen
class ProbabilityFlow(Sampler):
    """See `probability_flow`."""

    def step(self, key, state, score, sigma, sigma_next):
        """One Heun step (two score evaluations); the last step to zero is first order."""
        first, info = score(state, sigma)
        trial = replace(state, positions=state.positions + sigma * (sigma - sigma_next) * first)
        second, more = score(trial, jnp.maximum(sigma_next, 1e-3))
        mean = jnp.where(sigma_next > 0, 0.5 * (sigma * first + sigma_next * second), sigma * first)
        info = merge(info, more)
        return replace(state, positions=state.positions + (sigma - sigma_next) * mean), info


def probability_flow() -> ProbabilityFlow:
    """Deterministic flow dx = -sigma score dsigma, second order (Karras et al., NeurIPS 2022, algorithm 1)."""
    return ProbabilityFlow()


@frozen
class PredictorCorrector(Sampler):
    """See `predictor_corrector`."""

    predictor: Sampler
    size: jax.Array
    window: jax.Array
    corrections: int = static(default=1)

    def fit(self, structure):
        """Fit the predictor."""
        return replace(self, predictor=self.predictor.fit(structure))

    def grown(self, info):
        """Grow the predictor."""
        return replace(self, predictor=self.predictor.grown(info))

    def step(self, key, state, score, sigma, sigma_next):
        """Predictor, then corrections at the new level where it lies inside the window."""
        state, info = self.predictor.step(jax.random.fold_in(key, 0), state, score, sigma, sigma_next)
        width = self.size * sigma_next**2
        half = jnp.sqrt(width / 2)  # sqrt(2 e) / 2

        def correct(index, carry):
            state, before, info = carry
            value, more = score(state, sigma_next)
            after = _noise(jax.random.fold_in(key, index + 2), state)
            kick = half * (before + after)
            return replace(state, positions=state.positions + width * value + kick), after, merge(info, more)

        def corrected(carry):
            state, info = carry
            first = jnp.sqrt(3.0) * _noise(jax.random.fold_in(key, 1), state)  # with z_1 a variance of 2 e in all
            state, _, info = jax.lax.fori_loop(0, self.corrections, correct, (state, first, info))
            return state, info

        inside = (sigma_next >= self.window[0]) & (sigma_next <= self.window[1])
        return jax.lax.cond(inside, corrected, lambda carry: carry, (state, info))


def predictor_corrector(
    predictor: Sampler | None = None, *, corrections: int = 1, size: float = 0.15, window: tuple[float, float] = (1e-3, 1e3)
) -> PredictorCorrector:
    """A predictor step, then ``corrections`` Langevin steps at its noise level (Song et al., ICLR 2021), each with the mean of two steps' noise:

        x_{n+1} = x_n + e s(x_n) + sqrt(2 e) (z_n + z_{n+1}) / 2,   e = size x sigma^2

    (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34). In harmonic wells its stationary variance is the exact one, u^2 + sigma^2, for every
    standard deviation u of the well and every size; with independent noise (Euler-Maruyama) tight wells come out too wide by 1 / (1 - size / 2).
    The first step of a level, which shares no noise with one before it, has sqrt(3) z_0, that is independent noise: it makes 1 + c^2 of that
    variance, c = size sigma^2 / (u^2 + sigma^2), and each of the others leaves (1 - c)^2 of what is too much, after four steps 1 % at most. With
    size 1 and sigma >> u a step is the denoised estimate plus noise.

    Args:
      predictor: the step down in noise; `reverse_sde` by default.
      corrections: Langevin steps after it.
      size: of those steps, in units of sigma^2.
      window: A; noise levels (lowest, highest) that are corrected; outside it a step costs the predictor alone.

    Raises:
      ValueError: corrections below 1, size outside (0, 1], or a window that is not positive and ascending.
    """
    if corrections < 1 or not 0 < size <= 1:
        raise ValueError(f"corrections is {corrections} and size {size}; needs at least 1 correction and a size in (0, 1]")
    if not 0 < window[0] < window[1]:
        raise ValueError(f"window is {window}; needs two positive, ascending noise levels in angstrom")
    return PredictorCorrector(
        predictor=reverse_sde() if predictor is None else predictor,
        size=jnp.float32(size),
        window=jnp.asarray(window, jnp.float32),
        corrections=int(corrections),
    )


@frozen
class Breathe(Sampler):
    """See `breathe`."""

    sampler: Sampler
    low: jax.Array
    high: jax.Array
    gain: jax.Array
    window: jax.Array

    def fit(self, structure):
        """Fit the inner sampler."""
        return replace(self, sampler=self.sampler.fit(structure))

    def grown(self, info):
        """Grow the inner sampler."""
        return replace(self, sampler=self.sampler.grown(info))

    def densest(self, structure):
        """The structure scaled to the highest density allowed."""
        return scaled(self.sampler.densest(structure), number_density(structure), self.high)

    def step(self, key, state, score, sigma, sigma_next):
        """The inner step; then the cell follows the inferred density."""
        moved, info = self.sampler.step(key, state, score, sigma, sigma_next)
        inside = (sigma_next >= self.window[0]) & (sigma_next <= self.window[1])
        density = number_density(moved)
        change = jnp.where(inside, self.gain * jnp.clip(info["density_change"], -LARGEST, LARGEST), 0.0)
        wanted = jnp.clip(density * jnp.exp(change), self.low, self.high)
        # what is told of the density is what was known while it moved
        error = jnp.where(inside, info["density_deviation"], jnp.nan)
        return scaled(moved, density, wanted), info | {"number_density": wanted, "density_deviation": error}


LARGEST = 0.05  # of the logarithm of the density, inferred in one step, before the gain


def scaled(structure: Structure, density, wanted) -> Structure:
    """The structure with cell and positions scaled from number density ``density`` to ``wanted`` (atoms/A^3)."""
    factor = jnp.cbrt(density / wanted)
    return replace(structure, positions=structure.positions * factor, cell=structure.cell * factor)


def breathe(sampler: Sampler, density, *, gain: float = 0.15, window: tuple[float, float] = (0.15, 1.0)) -> Breathe:
    """Scale cell and positions after each step towards the density that the score infers (``density_change`` in its info, see `posterior`).

    Args:
      sampler: the sampler to wrap.
      density: `Density` with the bounds, atoms/A^3.
      gain: share of the inferred change taken per step.
      window: A, noise levels between which the cell moves; below it the structure settles in its final cell (and a cell that went on moving would
        make up for bond lengths in which data and prior differ).
    """
    return Breathe(sampler=sampler, low=density.low, high=density.high, gain=jnp.float32(gain), window=jnp.asarray(window, jnp.float32))


@frozen
class Veto(Sampler):
    """See `veto`."""

    sampler: Sampler
    limits: jax.Array
    reach: float = static()
    below: float = static()
    rounds: int = static()
    spec: NeighborSpec | None = static(default=None)

    def fit(self, structure):
        """Make the list of close pairs for structures like this one."""
        return replace(self, sampler=self.sampler.fit(structure), spec=neighbor_spec(structure, self.reach))

    def grown(self, info):
        """Grow the inner sampler and the list of close pairs."""
        return replace(self, sampler=self.sampler.grown(info), spec=grow(self.spec, info["needed_veto"]))

    def step(self, key, state, score, sigma, sigma_next):
        """The inner step; then atoms that came too close go back."""
        moved, info = self.sampler.step(key, state, score, sigma, sigma_next)
        spec = neighbor_spec(state, self.reach) if self.spec is None else self.spec
        active = sigma_next < self.below

        def sweep(_, carry):
            positions, needed = carry
            graph = build(replace(moved, positions=positions), spec)
            limit = self.limits[jnp.maximum(state.species, 0)[:, None], jnp.maximum(state.species, 0)[graph.neighbors]]
            # the same pair before the step: atoms that were too close and part are let go
            shift = positions - state.positions
            before = graph.displacements - shift[graph.neighbors] + shift[:, None]
            nearer = jnp.sum(before**2, axis=-1) >= graph.distances**2
            close = jnp.any(graph.mask & (graph.distances < limit) & nearer, axis=1)
            return jnp.where((close & active)[:, None], state.positions, positions), jnp.maximum(needed, graph.needed)

        positions, needed = jax.lax.fori_loop(0, self.rounds, sweep, (moved.positions, jnp.zeros(3, jnp.int32)))
        return replace(moved, positions=positions), info | {"needed_veto": needed}


def veto(sampler: Sampler, minimum_distance, elements, *, below: float = 0.12, rounds: int = 2) -> Veto:
    """Minimum-distance veto (GLASS SI 2.7): atoms of a pair that a step brings closer than ``minimum_distance`` keep their old position this step.

    A pair that is too close already may part; it may not come closer.

    Args:
      sampler: the sampler to wrap.
      minimum_distance: A, one number or a mapping of element pairs.
      elements: species order of the structures.
      below: A; only steps to a lower noise level are vetoed, because noise itself brings atoms close above it.
      rounds: sweeps per step (an atom that went back may now be close to another).
    """
    limits = pair_matrix(minimum_distance, elements)
    return Veto(sampler=sampler, limits=jnp.asarray(limits, jnp.float32), reach=float(max(limits.max(), 0.1)), below=float(below), rounds=int(rounds))
