"""Noise-level ladders: arrays [steps, 2] of (from, to) in angstrom. sigma is the only time.

A step whose ``from`` lies above the level reached so far adds the missing noise first, so restarts and two-stage protocols are ladders too.
"""

from __future__ import annotations

import numpy as np


def _pairs(levels: np.ndarray) -> np.ndarray:
    return np.stack([levels[:-1], levels[1:]], axis=1).astype(np.float32)


def _check(steps: int, sigma_max: float, sigma_min: float) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; needs at least 1")
    if not sigma_max > sigma_min >= 0:
        raise ValueError(f"noise runs from {sigma_max} to {sigma_min} A; needs sigma_max > sigma_min >= 0")


def linear(steps: int, *, sigma_max: float = 0.8, sigma_min: float = 0.0008) -> np.ndarray:
    """Equal steps in sigma (in t, for sigma = 0.8 A t), as published."""
    _check(steps, sigma_max, sigma_min)
    return _pairs(np.linspace(sigma_max, sigma_min, steps + 1))


def geometric(steps: int, *, sigma_max: float = 1.6, sigma_min: float = 0.03) -> np.ndarray:
    """Equal ratios of sigma (Song and Ermon, NeurIPS 2019)."""
    _check(steps, sigma_max, sigma_min)
    if sigma_min == 0:
        raise ValueError("a geometric ladder never reaches zero; needs sigma_min > 0")
    return _pairs(np.geomspace(sigma_max, sigma_min, steps + 1))


def karras(steps: int, *, sigma_max: float = 1.6, sigma_min: float = 0.03, exponent: float = 7.0) -> np.ndarray:
    """Equal steps in sigma^(1/exponent) (Karras et al., NeurIPS 2022, eq. 5)."""
    _check(steps, sigma_max, sigma_min)
    ramp = np.linspace(sigma_max ** (1 / exponent), sigma_min ** (1 / exponent), steps + 1)
    return _pairs(ramp**exponent)


def finish(ladder: np.ndarray) -> np.ndarray:
    """The ladder with a last step to zero noise: the denoised estimate (Tweedie)."""
    return np.concatenate([ladder, np.array([[ladder[-1, 1], 0.0]], np.float32)])


def restart(ladder: np.ndarray, *, sigma: float, cycles: int) -> np.ndarray:
    """The ladder, then ``cycles`` times its part below ``sigma`` again (re-noise and denoise; KWON used sigma = 0.24 A, 6-10 cycles)."""
    if cycles < 0:
        raise ValueError(f"cycles is {cycles}; needs 0 or more")
    tail = ladder[ladder[:, 0] <= sigma]
    if cycles and not len(tail):
        raise ValueError(f"no step of the ladder starts below {sigma} A; raise the restart level or take more steps")
    return np.concatenate([ladder] + [tail] * cycles)
