"""Many replicas: `sample` runs them in chunks, with checkpoints, and is the only host loop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glassjax import memory, segments
from glassjax._pytree import replace
from glassjax.checkpoint import Checkpoint, fingerprint
from glassjax.pace import Pace
from glassjax.replica import Ensemble, Stage, needed_of, start
from glassjax.structure import Structure, stack, unstack

WAIT = 0.5  # s, between looks at what other processes finished

# what scores and samplers report at every step and the ensemble keeps, beside the capacities that were needed
TRACES = ("r_factor", "chi_squared", "share", "nuisance", "nuisance_deviation", "number_density", "density_deviation")


def sample(
    key,
    stages: Sequence[Stage],
    structures: Structure | Sequence[Structure],
    *,
    replicas: int | Sequence[int] = 8,
    chunk: int | None = None,
    segment: int = 25,
    checkpoint=None,
    resume: bool = False,
    throw: bool = False,
    report=None,
    devices: Sequence | None = None,
    place: tuple[int, int] = (0, 1),
) -> Ensemble:
    """Sample an ensemble: replicas in chunks, one chunk per device at a time, in segments of the ladders.

    On a GPU a chunk is one compiled program (the last is padded); on a CPU its replicas run side by side on the cores, each a program of its own.
    Between segments the host checks capacities (a neighbour list that overflowed is grown and the segment repeated with the same random numbers),
    writes the checkpoint and reports. Replica i is the same structure alone or among others, whatever the number of processes: on one CPU device to
    the last bit unless a neighbour list overflowed, elsewhere to the last bit for equal chunk shapes; other chunks and numbers of devices change the
    rounding there.

    With several processes, every one calls this with the same arguments but ``place``, and one ``checkpoint`` folder that all see: each samples its
    share of the chunks, waits for the others, and returns the whole ensemble. After one that gave up, `Checkpoint.forget_failures` comes before any
    of them begins again (`invert` sees to it), or the first to begin would stop for another's old failure.

    Args:
      key: random key of the ensemble.
      stages: what to run, in order; scores and samplers are fitted to the structures here.
      structures: a start per replica, or one for all.
      replicas: how many, or their numbers.
      chunk: replicas per device and checkpoint; by default as many as there are cores, and at least 4, on CPUs (or what gives every device some),
        and on GPUs as many as the memory holds. Where the compiled program says that they need more than there is, or an allocation fails, fewer are
        taken at a time (with a warning), and what is finished is kept.
      segment: steps per compiled call.
      checkpoint: folder for the state; None to keep none.
      resume: continue from the checkpoint if it is there.
      throw: raise ``RuntimeError`` when a replica diverges, instead of marking it.
      report: callable, called with a dict (done and total steps, seconds left, replicas per hour, chunk, mean R-factors).
      devices: of this process, to share the replicas out over; by default all of its own, as many as there are chunks.
      place: number of this process, and how many there are.

    Raises:
      RuntimeError: a replica diverged with ``throw``, or memory is short for a single one.
      ValueError: several processes without a checkpoint folder, no replicas, a start per replica that does not match their number, or a checkpoint
        of another run.
    """
    numbers = list(range(replicas)) if isinstance(replicas, int) else list(replicas)
    if not numbers:
        raise ValueError("replicas is 0; needs at least 1")
    if (chunk is not None and chunk < 1) or segment < 1:
        raise ValueError(f"chunk is {chunk} and segment {segment}; both need at least 1")
    starts = [structures] * len(numbers) if isinstance(structures, Structure) else list(structures)
    if len(starts) != len(numbers):
        raise ValueError(f"{len(starts)} starting structures for {len(numbers)} replicas; needs one each, or one for all")
    if not all(s.cell.shape == starts[0].cell.shape and np.allclose(s.cell, starts[0].cell, atol=1e-4) for s in starts):
        raise ValueError("the starting structures have different cells; needs one cell for all: sample them one by one")
    if place[1] > 1 and checkpoint is None:
        raise ValueError(f"got {place[1]} processes and no checkpoint folder; needs one that all of them see; pass checkpoint (out)")
    devices = tuple(jax.local_devices() if devices is None else devices)
    return _Job(key, stages, starts, numbers, chunk, segment, checkpoint, report, devices, place).run(resume=resume, throw=throw)


def _mean_of_finite(ratios: np.ndarray) -> list[float]:
    """Mean over the replicas that are still finite [targets]."""
    finite = ratios[np.isfinite(ratios).all(axis=-1)]
    return finite.mean(axis=0).tolist() if len(finite) else []


class _Job:
    """State of one call of `sample` on the host."""

    def __init__(self, key, stages, starts, numbers, chunk, segment, folder, report, devices, place):
        self.key, self.starts, self.numbers, self.asked, self.segment = key, starts, numbers, chunk, segment
        self.report, self.place = report, place
        densest = starts[0]
        for s in stages:
            densest = s.sampler.densest(densest)
        self.fitted = [replace(s, score=s.score.fit(densest), sampler=s.sampler.fit(densest)) for s in stages]
        self.steps_per_group = sum(len(s.ladder) for s in stages)
        first = min(chunk, len(numbers)) if chunk else segments.default_chunk(len(numbers), len(devices), place[1])
        chunks = [list(range(i, min(i + first, len(numbers)))) for i in range(0, len(numbers), first)]
        self.share = chunks[place[0] :: place[1]]
        self.devices = devices[: max(1, min(len(devices), len(self.share)))]
        _, self.whole = segments.shardings(self.devices)
        self.fitted = jax.device_put(self.fitted, self.whole)  # once: the network's parameters need not travel with every segment
        self.finished: dict[int, dict] = {}
        self._share_out(first)
        # on a GPU the first program tells how many more fit
        self.runner = segments.Runner(self.devices, math.ceil(sum(map(len, self.share)) / len(self.devices)), chunk is None)
        self.pace = Pace()
        self.seen: set = set()
        self._fresh()
        self.checkpoint = Checkpoint(folder, fingerprint(key, starts, self.stages, (numbers, chunk, segment)), place)

    def _share_out(self, chunk: int):
        """Groups of what one compiled call samples, a chunk per device, of the replicas that are not finished."""
        own = sum(self.share, [])
        left = [m for m in own if m not in self.finished]
        self.chunk, self.batch = chunk, chunk * len(self.devices)
        self.groups = [left[i : i + self.batch] for i in range(0, len(left), self.batch)]
        self.done = self.steps_per_group * math.ceil((len(own) - len(left)) / self.batch)
        self.total = self.done + self.steps_per_group * len(self.groups)

    def _fresh(self):
        """The stages as they were fitted: what one group made overflow must not change the shapes, and so the last bits, of another."""
        self.stages, self.growth = list(self.fitted), []

    def run(self, *, resume: bool, throw: bool) -> Ensemble:
        try:
            return self._run(resume, throw)
        except Exception as error:
            self.checkpoint.save_failure(str(error))
            raise

    def _run(self, resume, throw):
        position = None
        if resume:
            self.finished = self.checkpoint.load_finished()
            position = self._position()
            self._share_out(position["chunk"] if position else self.chunk)
            self.runner.growing &= position is None
        while self.groups:
            try:
                self._sample_groups(position, throw)
                break
            except memory.Rechunk as error:
                self._share_out(error.chunk)
        self._wait()
        return self._collect()

    def _sample_groups(self, position, throw):
        for index, members in enumerate(self.groups):
            self._heed()
            self._fresh()
            self._group(index, members, position if self._fits(position, members) else None, throw)

    def _fits(self, position, members) -> bool:
        """Whether a position is that of a group of these members, in a batch of this size."""
        return position is not None and position["members"] == members and len(position["positions"]) == len(self._padded(members))

    def _padded(self, members):
        """The members of a batch that a compiled program of one shape takes."""
        return members if self.runner.lanes else members + [members[-1]] * (self.batch - len(members))

    def _wait(self):
        """Read what the other processes finished, until nothing is missing. With `distributed.initialise` this process ends when another dies."""
        while self.place[1] > 1 and len(self.finished) < len(self.numbers):
            self.finished |= self.checkpoint.load_news()
            self._heed()
            if len(self.finished) < len(self.numbers):
                time.sleep(WAIT)

    def _heed(self):
        """Stop where another process gave up."""
        if (message := self.checkpoint.failure()) is not None:
            raise RuntimeError(f"another process gave up: {message}")

    def _group(self, index, members, position, throw):
        padded = self._padded(members)
        batch = stack([self.starts[m] for m in padded])
        numbers = jnp.array([self.numbers[m] for m in padded], jnp.int32)
        state = jax.vmap(start, in_axes=(None, 0, 0))(self.key, numbers, batch)
        first_stage, first_step, traces = 0, 0, []
        if position:
            state = replace(
                state,
                structure=replace(state.structure, positions=position["positions"], cell=position["cell"]),
                sigma=position["sigma"],
                step=position["step"],
            )
            first_stage, first_step, traces = position["stage"], position["offset"], position["traces"]
            self._grow(position["growth"])
            self.done += sum(len(s.ladder) for s in self.stages[:first_stage]) + first_step
        for stage_index in range(first_stage, len(self.stages)):
            ladder = np.asarray(self.stages[stage_index].ladder)
            offset = first_step if stage_index == first_stage else 0
            if stage_index > first_stage:
                traces = []
            while offset < len(ladder):
                part = ladder[offset : offset + self.segment]
                state, info = self._run_segment(stage_index, state, part)
                traces.append({name: np.asarray(info[name])[: len(members)] for name in TRACES if name in info})
                offset += len(part)
                self.done += len(part)
                header = dict(members=members, devices=len(self.devices), chunk=self.chunk, stage=stage_index, offset=offset, growth=self.growth)
                arrays = dict(positions=state.structure.positions, cell=state.structure.cell, sigma=state.sigma, step=state.step)
                self.checkpoint.save_position(header, arrays, traces)
                self._progress(index, traces)
        self._finish(members, state, traces, throw)

    def _run_segment(self, stage_index, state, ladder):
        """One compiled call; grows capacities and repeats it (same keys, same result) until nothing overflows."""
        copy = segments.kept(state)  # the call uses the states up
        while True:
            stage = self.stages[stage_index]
            begun = time.monotonic()
            signature = (jax.tree.structure(stage), len(ladder), self.chunk)
            first = signature not in self.seen
            placed = replace(stage, ladder=jax.device_put(ladder, self.whole))
            try:
                new, info = self.runner(state, placed, chunk=self.chunk, check=first)
            except memory.Rechunk:
                self.pace.add(time.monotonic() - begun, 0, 0, first=True)
                raise
            self.pace.add(time.monotonic() - begun, len(ladder), len(state.step), first=first)
            self.seen.add(signature)
            largest = needed_of(info)
            grown = stage.grown(largest)
            if jax.tree.structure(grown) == jax.tree.structure(stage):
                return new, info
            state, self.stages[stage_index] = segments.restored(copy), grown
            self.growth.append([stage_index, {k: v.tolist() for k, v in largest.items()}])

    def _progress(self, chunk, traces):
        if not self.report:
            return
        pace = self.pace.step(self.done)
        latest = {name: _mean_of_finite(traces[-1][name][:, -1]) for name in ("r_factor", "chi_squared", "share") if name in traces[-1]}
        self.report(
            dict(
                done=self.done,
                total=self.total,
                seconds=self.pace.elapsed,
                left=pace * (self.total - self.done),
                chunk=chunk,
                chunks=len(self.groups),
                replicas_per_hour=3600 * self.place[1] * len(self.groups[chunk]) / (pace * self.steps_per_group) if pace else float("nan"),
                r_factor=latest.get("r_factor", []),
                chi_squared=latest.get("chi_squared", []),
                share=latest.get("share", []),
            )
        )

    def _finish(self, members, state, traces, throw):
        result = unstack(jax.device_get(state.structure))
        joined = {name: np.concatenate([t[name] for t in traces], axis=1) for name in (traces[0] if traces else ())}
        for row, member in enumerate(members):
            good = bool(np.isfinite(result[row].positions).all() and np.isfinite(result[row].cell).all())
            arrays = dict(positions=np.asarray(result[row].positions), cell=np.asarray(result[row].cell))
            self.finished[member] = dict(good=good, arrays=arrays | {f"trace/{name}": values[row] for name, values in joined.items()})
            if throw and not good:
                raise RuntimeError(
                    f"replica {self.numbers[member]} diverged; lower the strength or take more steps, or pass throw=False to keep the others"
                )
        self.checkpoint.save_finished(self.finished, members)

    def _collect(self) -> Ensemble:
        order = range(len(self.numbers))
        found = [self.finished[m]["arrays"] for m in order]
        structures = [replace(s, positions=jnp.asarray(a["positions"]), cell=jnp.asarray(a["cell"])) for s, a in zip(self.starts, found, strict=True)]
        names = [name for name in found[0] if name.startswith("trace/")]
        return Ensemble(
            structures=structures,
            replicas=self.numbers,
            status=["ok" if self.finished[m]["good"] else "diverged" for m in order],
            traces={name.removeprefix("trace/"): np.stack([a[name] for a in found]) for name in names},
            seconds=self.pace.summary() | dict(steps=self.steps_per_group),
            elements=self.starts[0].elements,
        )

    def _position(self) -> dict | None:
        """Where the group that was interrupted stands."""
        found = self.checkpoint.load_position()
        if found is None or found[0]["devices"] != len(self.devices):
            return None
        header, arrays, traces = found
        return header | {k: jnp.asarray(v) for k, v in arrays.items()} | dict(traces=traces)

    def _grow(self, growth):
        """Repeat the growth of an interrupted group, so that the shapes, and so the last bits, are the same."""
        for index, largest in growth:
            self.stages[index] = self.stages[index].grown({k: np.asarray(v) for k, v in largest.items()})
        self.growth = list(growth)
