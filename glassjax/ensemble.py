"""Run a sampler over noise levels (`run`, one replica, a `lax.scan`) and over many replicas (`sample`, the only host loop)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, replace
from glassjax.structure import Structure, stack, unstack


@frozen
class Stage:
    """A score, a sampler and a ladder of noise levels [steps, 2] (from, to), A."""

    score: object
    sampler: object
    ladder: jax.Array


@frozen
class State:
    """What one replica carries from step to step: structure, the noise level it has (A), its own key, and steps done."""

    structure: Structure
    sigma: jax.Array
    key: jax.Array
    step: jax.Array


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
      r_factor: [replicas, steps, targets] of the denoised estimate during the last stage (empty without targets).
      seconds: wall time of sampling, compilation included, and of compilation alone.
      elements: species order.
    """

    structures: list[Structure]
    replicas: list[int]
    status: list[str]
    r_factor: np.ndarray
    seconds: dict
    elements: tuple[str, ...]

    def good(self) -> list[int]:
        """Indices of the replicas that did not diverge."""
        return [i for i, s in enumerate(self.status) if s == "ok"]

    def to_atoms(self, info: Sequence[dict] | None = None) -> list:
        """ASE atoms of the good replicas, wrapped into the cell; ``info`` holds a dict per replica."""
        from glassjax.io.atoms import to_atoms

        extra = [{} for _ in self.structures] if info is None else info
        return [to_atoms(self.structures[i], info={"replica": self.replicas[i]} | extra[i]) for i in self.good()]


_segment = jax.jit(jax.vmap(advance, in_axes=(0, None)))


def sample(
    key,
    stages: Sequence[Stage],
    structures: Structure | Sequence[Structure],
    *,
    replicas: int | Sequence[int] = 8,
    chunk: int = 4,
    segment: int = 25,
    checkpoint=None,
    resume: bool = False,
    throw: bool = False,
    report=None,
) -> Ensemble:
    """Sample an ensemble: replicas in chunks of equal shape (the last is padded), each chunk in segments of the ladders.

    Between segments the host checks capacities (a neighbour list that overflowed is grown and the segment repeated with the same random numbers),
    writes the checkpoint and reports. Replica i is the same structure alone or among others, to the last bit for equal chunk shapes and capacities.

    Args:
      key: random key of the ensemble.
      stages: what to run, in order; scores and samplers are fitted to the structures here.
      structures: a start per replica, or one for all.
      replicas: how many, or their numbers.
      chunk: replicas per compiled call (memory grows with it).
      segment: steps per compiled call.
      checkpoint: folder for the state; None to keep none.
      resume: continue from the checkpoint if it is there.
      throw: raise ``RuntimeError`` when a replica diverges, instead of marking it.
      report: callable, called with a dict (done and total steps, seconds left, chunk, mean R-factors).

    Raises:
      ValueError: no replicas, a start per replica that does not match their number, or a checkpoint of another run.
    """
    numbers = list(range(replicas)) if isinstance(replicas, int) else list(replicas)
    if not numbers:
        raise ValueError("replicas is 0; needs at least 1")
    if chunk < 1 or segment < 1:
        raise ValueError(f"chunk is {chunk} and segment {segment}; both need at least 1")
    starts = [structures] * len(numbers) if isinstance(structures, Structure) else list(structures)
    if len(starts) != len(numbers):
        raise ValueError(f"{len(starts)} starting structures for {len(numbers)} replicas; needs one each, or one for all")
    if not all(s.cell.shape == starts[0].cell.shape and np.allclose(s.cell, starts[0].cell, atol=1e-4) for s in starts):
        raise ValueError("the starting structures have different cells; needs one cell for all: sample them one by one")
    chunk = min(chunk, len(numbers))
    job = _Job(key, stages, starts, numbers, chunk, segment, None if checkpoint is None else Path(checkpoint), report)
    return job.run(resume=resume, throw=throw)


def _mean_of_finite(ratios: np.ndarray) -> list[float]:
    """Mean over the replicas that are still finite [targets]."""
    finite = ratios[np.isfinite(ratios).all(axis=-1)]
    return finite.mean(axis=0).tolist() if len(finite) else []


class _Job:
    """State of one call of `sample` on the host."""

    def __init__(self, key, stages, starts, numbers, chunk, segment, folder, report):
        self.key, self.starts, self.numbers, self.chunk, self.segment = key, starts, numbers, chunk, segment
        self.folder, self.report = folder, report
        first = starts[0]
        self.stages = [replace(s, score=s.score.fit(first), sampler=s.sampler.fit(first)) for s in stages]
        self.steps_per_chunk = sum(len(s.ladder) for s in stages)
        self.chunks = [list(range(i, min(i + chunk, len(numbers)))) for i in range(0, len(numbers), chunk)]
        self.total = self.steps_per_chunk * len(self.chunks)
        self.done, self.first_calls, self.started, self.timed = 0, [], time.monotonic(), []
        self.finished: dict[int, dict] = {}
        self.seen: set = set()
        self.growth: list = []  # what overflowed so far, replayed on resume so that the shapes, and so the last bits, are the same

    def fingerprint(self) -> str:
        """Hash of what decides the result: key, replicas, starts, ladders, chunk shape."""
        digest = hashlib.sha256(np.asarray(jax.random.key_data(self.key)).tobytes())
        for s in self.starts:
            digest.update(
                np.asarray(s.positions).tobytes() + np.asarray(s.cell).tobytes() + np.asarray(s.species).tobytes() + repr(s.elements).encode()
            )
        digest.update(repr(jax.tree.structure([(s.score, s.sampler) for s in self.stages])).encode())
        for leaf in jax.tree.leaves(jax.device_get([(s.score, s.sampler, s.ladder) for s in self.stages])):
            digest.update(np.asarray(leaf).tobytes())
        digest.update(repr((self.numbers, self.chunk, self.segment)).encode())
        return digest.hexdigest()

    def run(self, *, resume: bool, throw: bool) -> Ensemble:
        mark = self.fingerprint()
        position = self._load(mark) if resume else None
        for index, members in enumerate(self.chunks):
            if all(m in self.finished for m in members):
                self.done += self.steps_per_chunk
                continue
            self._chunk(index, members, position if position and position["chunk"] == index else None, mark, throw)
            position = None
        return self._collect()

    def _chunk(self, index, members, position, mark, throw):
        padded = members + [members[-1]] * (self.chunk - len(members))
        batch = stack([self.starts[m] for m in padded])
        numbers = jnp.array([self.numbers[m] for m in padded], jnp.int32)
        state = jax.vmap(start, in_axes=(None, 0, 0))(self.key, numbers, batch)
        first_stage, first_step, ratios = 0, 0, []
        if position:
            state = replace(
                state, structure=replace(state.structure, positions=position["positions"]), sigma=position["sigma"], step=position["step"]
            )
            first_stage, first_step, ratios = position["stage"], position["offset"], position["ratios"]
            self.done += sum(len(s.ladder) for s in self.stages[:first_stage]) + first_step
        for stage_index in range(first_stage, len(self.stages)):
            ladder = np.asarray(self.stages[stage_index].ladder)
            offset = first_step if stage_index == first_stage else 0
            if stage_index > first_stage:
                ratios = []
            while offset < len(ladder):
                part = ladder[offset : offset + self.segment]
                state, info = self._run_segment(stage_index, state, part)
                if "r_factor" in info:
                    ratios.append(np.asarray(info["r_factor"])[: len(members)])
                offset += len(part)
                self.done += len(part)
                self._save_position(mark, index, stage_index, offset, state, ratios)
                self._progress(index, ratios)
        self._finish(members, state, ratios, mark, throw)

    def _run_segment(self, stage_index, state, ladder):
        """One compiled call; grows capacities and repeats it (same keys, same result) until nothing overflows."""
        while True:
            stage = self.stages[stage_index]
            begun = time.monotonic()
            signature = (jax.tree.structure(stage), len(ladder))
            new, info = jax.block_until_ready(_segment(state, replace(stage, ladder=jnp.asarray(ladder))))
            seconds = time.monotonic() - begun
            if signature in self.seen:
                self.timed.append(seconds / len(ladder))
            else:
                self.first_calls.append((seconds, len(ladder)))
            self.seen.add(signature)
            largest = {k: np.asarray(v).reshape(-1, 3).max(axis=0) for k, v in info.items() if k.startswith("needed")}
            grown = replace(stage, score=stage.score.grown(largest), sampler=stage.sampler.grown(largest))
            if jax.tree.structure(grown) == jax.tree.structure(stage):
                return new, info
            self.stages[stage_index] = grown
            self.growth.append([stage_index, {k: v.tolist() for k, v in largest.items()}])

    def _progress(self, chunk, ratios):
        if not self.report:
            return
        elapsed = time.monotonic() - self.started
        pace = float(np.median(self.timed)) if self.timed else elapsed / max(self.done, 1)
        latest = _mean_of_finite(ratios[-1][:, -1]) if ratios else []
        self.report(
            dict(
                done=self.done,
                total=self.total,
                seconds=elapsed,
                left=pace * (self.total - self.done),
                chunk=chunk,
                chunks=len(self.chunks),
                r_factor=latest,
            )
        )

    def _finish(self, members, state, ratios, mark, throw):
        result = unstack(jax.device_get(state.structure))
        history = np.concatenate(ratios, axis=1) if ratios else np.zeros((len(members), 0, 0))
        for row, member in enumerate(members):
            good = bool(np.isfinite(result[row].positions).all())
            self.finished[member] = dict(positions=np.asarray(result[row].positions), good=good, history=history[row])
            if throw and not good:
                raise RuntimeError(
                    f"replica {self.numbers[member]} diverged; lower the strength or take more steps, or pass throw=False to keep the others"
                )
        self._save_finished(mark)

    def _collect(self) -> Ensemble:
        order = range(len(self.numbers))
        structures = [replace(self.starts[m], positions=jnp.asarray(self.finished[m]["positions"])) for m in order]
        seconds = time.monotonic() - self.started
        pace = float(np.median(self.timed)) if self.timed else float("nan")
        compiling = sum(max(0.0, s - pace * n) for s, n in self.first_calls) if self.timed else None
        timing = dict(
            total=seconds, compilation=compiling, per_step_per_replica=pace / self.chunk if self.timed else None, steps=self.steps_per_chunk
        )
        return Ensemble(
            structures=structures,
            replicas=self.numbers,
            status=["ok" if self.finished[m]["good"] else "diverged" for m in order],
            r_factor=np.stack([self.finished[m]["history"] for m in order]),
            seconds=timing,
            elements=self.starts[0].elements,
        )

    def _write(self, name, header, arrays):
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{name}.part.npz"
        np.savez(partial, __header__=np.array(json.dumps(header)), **arrays)
        os.replace(partial, self.folder / f"{name}.npz")

    def _read(self, name, mark):
        path = self.folder / f"{name}.npz" if self.folder else None
        if path is None or not path.exists():
            return None, {}
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {k: archive[k] for k in archive.files}
            header = json.loads(str(arrays.pop("__header__")))
        except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError) as error:
            raise ValueError(f"the checkpoint {path} is corrupted ({error}); delete the folder {self.folder}, or pass a new --out") from error
        if header["mark"] != mark:
            raise ValueError(
                f"the checkpoint in {self.folder} belongs to a run with other inputs; pass the same inputs, or a new --out without --resume"
            )
        return header, arrays

    def _save_position(self, mark, chunk, stage, offset, state, ratios):
        arrays = dict(positions=np.asarray(state.structure.positions), sigma=np.asarray(state.sigma), step=np.asarray(state.step))
        arrays |= {f"ratios{i}": r for i, r in enumerate(ratios)}
        self._write("position", dict(mark=mark, chunk=chunk, stage=stage, offset=offset, growth=self.growth), arrays)

    def _save_finished(self, mark):
        arrays = {}
        for member, value in self.finished.items():
            arrays |= {f"positions/{member}": value["positions"], f"history/{member}": value["history"]}
        self._write("finished", dict(mark=mark, good={str(m): v["good"] for m, v in self.finished.items()}), arrays)

    def _load(self, mark):
        header, arrays = self._read("finished", mark)
        if header:
            for member, good in header["good"].items():
                self.finished[int(member)] = dict(positions=arrays[f"positions/{member}"], good=good, history=arrays[f"history/{member}"])
        header, arrays = self._read("position", mark)
        if not header:
            return None
        ratios = [arrays[f"ratios{i}"] for i in range(sum(k.startswith("ratios") for k in arrays))]
        for index, largest in header["growth"]:
            stage, needed = self.stages[index], {k: np.asarray(v) for k, v in largest.items()}
            self.stages[index] = replace(stage, score=stage.score.grown(needed), sampler=stage.sampler.grown(needed))
        self.growth = header["growth"]
        values = {k: jnp.asarray(arrays[k]) for k in ("positions", "sigma", "step")}
        return values | dict(chunk=header["chunk"], stage=header["stage"], offset=header["offset"], ratios=ratios)
