"""What FEFF writes: scattering paths (feffNNNN.dat), chi(k) (chi.dat) and mu(E) (xmu.dat)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

__all__ = ["FeffPath", "path_chi", "read_chi", "read_mu", "read_path"]

COLUMNS = ("k", "phase_centre", "magnitude", "phase", "reduction", "mean_free_path", "momentum")  # of a path's table


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeffPath:
    """One scattering path of FEFF (feffNNNN.dat).

    Attributes:
      legs: number of legs.
      degeneracy: how many such paths there are.
      reff: half the path's length, A.
      positions: [legs, 3] of the atoms, A, from the absorber, which comes first.
      species: their chemical symbols.
      k: [m] wavenumber from FEFF's Fermi level, 1/A.
      phase_centre: [m] phase shift of the absorber, twice (FEFF's real[2*phc]).
      magnitude: [m] effective scattering amplitude, A.
      phase: [m] its phase.
      reduction: [m] reduction by the absorber's core hole.
      mean_free_path: [m] lambda, A.
      momentum: [m] real part of the complex momentum, 1/A.
    """

    legs: int
    degeneracy: float
    reff: float
    positions: np.ndarray
    species: list[str]
    k: np.ndarray
    phase_centre: np.ndarray
    magnitude: np.ndarray
    phase: np.ndarray
    reduction: np.ndarray
    mean_free_path: np.ndarray
    momentum: np.ndarray


def read_path(text_or_file: str | Path) -> FeffPath:
    """Read one feffNNNN.dat, a file or its text; raises ``ValueError`` for what is none."""
    where, lines = _lines(text_or_file)
    start = next((i for i, line in enumerate(lines) if "nleg" in line and "reff" in line), None)
    if start is None:
        raise ValueError(f"{where}: got no line 'nleg, deg, reff'; needs one scattering path of FEFF (feffNNNN.dat); check the file")
    try:
        from ase.data import chemical_symbols

        words = lines[start].split()
        legs, first = int(words[0]), start + 2
        atoms = [line.split() for line in lines[first : first + legs]]
        rows = [line.split() for line in lines[first + legs :]]
        begin = next(i for i, row in enumerate(rows) if row[:1] == ["k"]) + 1
        table = np.array([row for row in rows[begin:] if row], dtype=float)
        return FeffPath(
            legs=legs,
            degeneracy=float(words[1]),
            reff=float(words[2]),
            positions=np.array([atom[:3] for atom in atoms], dtype=float),
            species=[chemical_symbols[int(atom[4])] for atom in atoms],
            **dict(zip(COLUMNS, _finite(table).T, strict=True)),
        )
    except (ValueError, IndexError, StopIteration) as error:
        raise ValueError(f"{where}: got a path that cannot be read ({error}); needs FEFF's columns, all finite; run FEFF again") from error


def path_chi(path: FeffPath, k=None) -> np.ndarray:
    """chi(k) [m] of one path with S0^2 = 1 and no disorder, degeneracy included.

    chi(k) = N R(k) F(k) / (k reff^2) exp(-2 reff / lambda(k)) sin(2 k reff + 2 delta_c(k) + phi(k)), with reduction R, magnitude F,
    mean free path lambda, phase_centre 2 delta_c and phase phi (Zabinsky et al., Phys. Rev. B 52, 2995 (1995)).

    Args:
      k: [m] 1/A, by default the path's own; FEFF's columns are interpolated linearly, as FEFF does. Below 0.01 the value at 0.01 is given.

    Raises:
      ValueError: k goes beyond the path's.
    """
    k = np.maximum(path.k if k is None else np.asarray(k, dtype=float), 0.01)
    if k.size and k.max() > path.k[-1] + 1e-6:
        raise ValueError(f"got k up to {k.max():g} 1/A; needs at most {path.k[-1]:g}, where FEFF's table ends; shorten k or raise kmax")
    at = {name: np.interp(k, path.k, getattr(path, name)) for name in COLUMNS[1:]}
    size = path.degeneracy * at["reduction"] * at["magnitude"] / (k * path.reff**2) * np.exp(-2 * path.reff / at["mean_free_path"])
    return size * np.sin(2 * k * path.reff + at["phase_centre"] + at["phase"])


def read_chi(file: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """k [m] (1/A, from FEFF's Fermi level) and chi [m] of a chi.dat; raises ``ValueError`` for what is none."""
    return _columns(file, (0, 1))


def read_mu(file: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Energy [m] (eV, absolute) and mu [m] (in units of the edge step) of an xmu.dat; raises ``ValueError`` for what is none."""
    return _columns(file, (0, 3))


def _columns(file: str | Path, chosen: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    where, lines = _lines(file)
    rows = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    try:
        x, y = _finite(np.array(rows, dtype=float))[:, chosen].T
    except (ValueError, IndexError) as error:
        raise ValueError(f"{where}: got a table that cannot be read ({error}); needs FEFF's columns of finite numbers; run FEFF again") from error
    if len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"{where}: got {len(x)} points, not ascending; needs a curve; run FEFF again")
    return x, y


def _lines(text_or_file: str | Path) -> tuple[str, list[str]]:
    if isinstance(text_or_file, str) and "\n" in text_or_file:
        return "the text", text_or_file.splitlines()
    return str(text_or_file), Path(text_or_file).read_text(errors="replace").splitlines()


def _finite(table: np.ndarray) -> np.ndarray:
    if table.ndim != 2 or not len(table) or not np.isfinite(table).all():
        raise ValueError(f"shape {table.shape}, or NaN or infinity")
    return table
