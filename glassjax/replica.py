"""One replica through the noise levels: pure functions, a `lax.scan` per stage; the batch is `jax.vmap` of them. And what comes of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, replace
from glassjax.structure import Structure


@frozen
class Stage:
    """A score, a sampler and a ladder of noise levels [steps, 2] (from, to), A."""

    score: object
    sampler: object
    ladder: jax.Array

    def grown(self, needed: dict) -> Stage:
        """The stage with capacities that suffice for what its lists needed."""
        return replace(self, score=self.score.grown(needed), sampler=self.sampler.grown(needed))


@frozen
class State:
    """What one replica carries from step to step: structure, the noise level it has (A), its own key, and steps done."""

    structure: Structure
    sigma: jax.Array
    key: jax.Array
    step: jax.Array


def needed_of(info: dict) -> dict:
    """What the lists of a segment needed, the most over its steps and replicas: int32 [3] by name, as `Stage.grown` takes it."""
    return {name: np.asarray(value).reshape(-1, 3).max(axis=0) for name, value in info.items() if name.startswith("needed")}


def start(key, replica, structure: Structure) -> State:
    """State of replica number ``replica`` before its first step; its random numbers depend on ``key`` and ``replica`` alone."""
    return State(structure=structure, sigma=jnp.float32(0.0), key=jax.random.fold_in(key, replica), step=jnp.int32(0))


def advance(state: State, stage: Stage) -> tuple[State, dict]:
    """Scan one replica through the ladder of a stage.

    Before a step that starts above the level reached, the missing noise is added: a clean structure, a restart and a two-stage protocol are one case.
    The random numbers of a step depend on the replica's key and the step's number alone.

    Returns:
      (state, info): info leaves have a leading axis of steps.
    """

    def step(state: State, levels):
        sigma, following = levels[0], levels[1]
        noise_key, step_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        # as a product: equal levels give exactly zero, where a fused a * a - b * b leaves a rounding error, and its root is 1e-4 A of noise
        missing = jnp.sqrt(jnp.maximum((sigma - state.sigma) * (sigma + state.sigma), 0.0))
        kick = missing * jax.random.normal(noise_key, state.structure.positions.shape, state.structure.positions.dtype)
        kick = jnp.where((state.structure.species >= 0)[:, None], kick, 0.0)
        noisy = replace(state.structure, positions=state.structure.positions + kick)
        structure, info = stage.sampler.step(step_key, noisy, stage.score, sigma, following)
        return State(structure=structure, sigma=following, key=state.key, step=state.step + 1), info

    return jax.lax.scan(step, state, jnp.asarray(stage.ladder, jnp.float32))


def run(key, structure: Structure, stages: Sequence[Stage], *, replica: int = 0) -> tuple[Structure, list[dict]]:
    """One replica through all stages; pure, so `jax.vmap` and `jax.jit` apply. Returns the structure and the info of each stage."""
    state, infos = start(key, replica, structure), []
    for stage in stages:
        state, info = advance(state, stage)
        infos.append(info)
    return state.structure, infos


@dataclasses.dataclass
class Ensemble:
    """Structures sampled together.

    Attributes:
      structures: one per replica.
      replicas: replica numbers.
      status: "ok" or "diverged" per replica.
      traces: of the denoised estimate during the last stage, by name ("r_factor", "chi_squared", "share" [replicas, steps, targets], "nuisance",
        "nuisance_deviation" [replicas, steps, parameters], "number_density", "density_deviation" [replicas, steps]); empty without targets.
      seconds: wall time of sampling, compilation included, and of compilation alone.
      elements: species order.
    """

    structures: list[Structure]
    replicas: list[int]
    status: list[str]
    traces: dict[str, np.ndarray]
    seconds: dict
    elements: tuple[str, ...]

    @property
    def r_factor(self) -> np.ndarray:
        """[replicas, steps, targets] during the last stage."""
        return self.traces.get("r_factor", np.zeros((len(self.structures), 0, 0)))

    def last(self, name: str) -> np.ndarray | None:
        """A trace at the last step [replicas, ...], or None where there is none."""
        values = self.traces.get(name)
        return None if values is None or not values.shape[1] else values[:, -1]

    def good(self) -> list[int]:
        """Indices of the replicas that did not diverge."""
        return [i for i, s in enumerate(self.status) if s == "ok"]

    def to_atoms(self, info: Sequence[dict] | None = None) -> list:
        """ASE atoms of the good replicas; ``info`` holds a dict per replica."""
        from glassjax.io.atoms import to_atoms

        extra = [{} for _ in self.structures] if info is None else info
        return [to_atoms(self.structures[i], info={"replica": self.replicas[i]} | extra[i]) for i in self.good()]
