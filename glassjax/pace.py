"""How fast an ensemble is sampled: seconds per step, compilation apart."""

from __future__ import annotations

import time

import numpy as np


class Pace:
    """Times of the segments of a run; the first of every compiled program holds its compilation."""

    def __init__(self):
        self.started = time.monotonic()
        self._first, self._steps, self._each = [], [], []

    def add(self, seconds: float, steps: int, replicas: int, *, first: bool) -> None:
        """A segment of ``steps`` of ``replicas`` together took ``seconds``."""
        if first:
            self._first.append((seconds, steps))
        else:
            self._steps.append(seconds / steps)
            self._each.append(seconds / steps / replicas)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def step(self, done: int) -> float:
        """Seconds per step of a group: the median, and before there is one, what ``done`` steps took."""
        return float(np.median(self._steps)) if self._steps else self.elapsed / max(done, 1)

    def summary(self) -> dict:
        """Seconds in ``total``, of ``compilation``, and ``per_step_per_replica`` (None before a program ran twice)."""
        if not self._steps:
            return dict(total=self.elapsed, compilation=None, per_step_per_replica=None)
        step = float(np.median(self._steps))
        compilation = sum(max(0.0, seconds - step * steps) for seconds, steps in self._first)
        return dict(total=self.elapsed, compilation=compilation, per_step_per_replica=float(np.median(self._each)))
