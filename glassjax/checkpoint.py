"""The state of an ensemble on disk: the finished replicas of every process, and where the replicas in progress of each stand."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import jax
import numpy as np

from glassjax.archive import CorruptedArchive, read_arrays, write_arrays


class Unreadable(ValueError):
    """A file of a checkpoint that is corrupted, or that was being replaced."""


def fingerprint(key, starts, stages, numbers) -> str:
    """Hash of what decides an ensemble: key, starting structures, scores, samplers and ladders, and numbers."""
    digest = hashlib.sha256(np.asarray(jax.random.key_data(key)).tobytes())
    for s in starts:
        digest.update(np.asarray(s.positions).tobytes() + np.asarray(s.cell).tobytes() + np.asarray(s.species).tobytes() + repr(s.elements).encode())
    digest.update(repr(jax.tree.structure([(s.score, s.sampler) for s in stages])).encode())
    for leaf in jax.tree.leaves(jax.device_get([(s.score, s.sampler, s.ladder) for s in stages])):
        digest.update(np.asarray(leaf).tobytes())
    digest.update(repr(numbers).encode())
    return digest.hexdigest()


class Checkpoint:
    """Files finished_<process>.npz, position_<process>.npz and perhaps failed_<process>.npz of one run in a folder.

    Attributes:
      folder: where they are; None to keep nothing.
      mark: hash of the run's inputs; files of another run are refused.
      place: number of this process, and how many there are.
      written: the finished replicas (indices) in this process's file.
    """

    def __init__(self, folder, mark: str, place: tuple[int, int]):
        self.folder, self.mark, self.place = None if folder is None else Path(folder), mark, place
        self.written: list[int] = []
        self._warned, self._read_at = False, {}
        if self.folder is not None:
            (self.folder / f"failed_{place[0]}.npz").unlink(missing_ok=True)

    def save_position(self, header: dict, arrays: dict, traces: list[dict]) -> None:
        """Write where the replicas in progress stand: any JSON, any arrays, and the traces of every segment so far."""
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        arrays |= {f"trace/{i}/{name}": value for i, part in enumerate(traces) for name, value in part.items()}
        self._write("position", header | dict(segments=len(traces)), arrays)

    def load_position(self) -> tuple[dict, dict, list[dict]] | None:
        """What `save_position` was given last, or None."""
        path = None if self.folder is None else self.folder / f"position_{self.place[0]}.npz"
        if path is None or not path.exists():
            return None
        header, arrays = self._read(path)
        traces = [{} for _ in range(header["segments"])]
        for name in [n for n in arrays if n.startswith("trace/")]:
            _, segment, what = name.split("/")
            traces[int(segment)][what] = arrays.pop(name)
        return header, arrays, traces

    def save_finished(self, finished: dict[int, dict], members: list[int]) -> None:
        """Add ``members`` to this process's file; ``finished`` holds {good, arrays} of every replica."""
        self.written += members
        arrays = {f"{member}/{name}": array for member in self.written for name, array in finished[member]["arrays"].items()}
        self._write("finished", dict(good={str(m): finished[m]["good"] for m in self.written}), arrays, needed=self.place[1] > 1)

    def load_finished(self) -> dict[int, dict]:
        """{good, arrays} of the finished replicas of all processes.

        Raises:
          ValueError: a corrupted file, or one of another run or an earlier version.
        """
        if self.folder is not None and (self.folder / "finished.npz").exists():
            raise ValueError(f"the checkpoint in {self.folder} is of an earlier version; finish it with that, or pass a new --out without --resume")
        return self._load(sorted(self.folder.glob("finished_*.npz")) if self.folder is not None else [])

    def load_news(self) -> dict[int, dict]:
        """What other processes finished since the last call; a file that cannot be read now is tried again at the next."""
        finished: dict[int, dict] = {}
        for path in sorted(self.folder.glob("finished_*.npz")):
            try:
                written = path.stat().st_mtime_ns
                if self._read_at.get(path) != written:
                    finished |= self._load([path])
                    self._read_at[path] = written
            except (OSError, Unreadable):
                continue
        return finished

    def save_failure(self, message: str) -> None:
        """Tell the other processes of this run that this one gave up."""
        if self.place[1] > 1 and self.failure() is None:
            self._write("failed", dict(message=message), {})

    def failure(self) -> str | None:
        """What another process gave up for, or None."""
        for path in sorted(self.folder.glob("failed_*.npz")) if self.place[1] > 1 else []:
            try:
                return self._read(path)[0]["message"]
            except (OSError, ValueError):  # being written, or of other inputs
                continue
        return None

    @staticmethod
    def forget_failures(folder) -> None:
        """Remove what the processes of an earlier run wrote when they gave up: before the first of this run begins."""
        for path in Path(folder).glob("failed_*.npz"):
            path.unlink(missing_ok=True)

    def _load(self, paths) -> dict[int, dict]:
        finished: dict[int, dict] = {}
        for path in paths:
            header, arrays = self._read(path)
            if path.stem == f"finished_{self.place[0]}":
                self.written = [int(m) for m in header["good"]]
            for member, good in header["good"].items():
                finished[int(member)] = dict(good=good, arrays={})
            for name, array in arrays.items():
                member, _, what = name.partition("/")
                finished[int(member)]["arrays"][what] = array
        return finished

    def _write(self, name, header, arrays, needed: bool = False):
        """Where it fails, say so once and go on: the replicas are still in memory; but not with what other processes wait for (``needed``)."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_arrays(self.folder / f"{name}_{self.place[0]}.npz", header | dict(mark=self.mark), arrays, compress=False)
        except OSError as error:
            if needed:
                raise
            if not self._warned:
                warnings.warn(f"the checkpoint in {self.folder} cannot be written ({error}); sampling goes on without it", stacklevel=2)
            self._warned = True

    def _read(self, path):
        try:
            header, arrays = read_arrays(path)
        except CorruptedArchive as error:
            raise Unreadable(f"the checkpoint {path} is corrupted ({error}); delete the folder {self.folder}, or pass a new --out") from error
        if header["mark"] != self.mark:
            raise ValueError(
                f"the checkpoint in {self.folder} belongs to a run with other inputs; pass the same inputs, or a new --out without --resume"
            )
        return header, arrays
