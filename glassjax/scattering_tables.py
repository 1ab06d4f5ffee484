"""Scattering amplitudes of EXAFS paths as smooth functions of wavenumber and geometry, fitted to FEFF's paths; tables by edge, shipped or your own.

A path of half length R gives  chi(k) = Im[ F(k) exp(2 i k R) ] exp(-2 R / lambda(k)) / (k R^2)  with
F = mag[feff] red exp(i (real[2*phc] + phase[feff])) of feffNNNN.dat (Zabinsky et al., Phys. Rev. B 52, 2995 (1995)). Here F is a sum of few
functions of the geometry with coefficients that depend on k, one least-squares fit per k over the paths of many sites (`scattering_fit`): the average
over the potentials of all those sites comes with it.

    single scattering   F = sum_dp C_dp(k) (rho0 / rho_t - 1)^d R^-p               d = 0, 1 and p = 0..5
    two scatterers      F = (reff^2 / product of leg lengths) sum_b C_b(k) B_b     B: polynomials of two cosines, times 1 and inverse leg lengths

The number density enters because the zero of the muffin-tin potential, and with it the phase, follows it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np

from glassjax.archive import CorruptedArchive, read_arrays, write_arrays

FORMAT = "glassjax-exafs-1"
POWERS = 6  # of 1 / R
KGRID = np.arange(0.0, 18.01, 0.1)  # 1/A, of single scattering
KCOARSE = np.arange(0.0, 18.01, 0.2)  # of two scatterers
KINDS = ("triangle", "bounce", "through")
FOLDER = Path(__file__).parent / "data"


def radial_terms(r) -> np.ndarray:
    """[m, POWERS] of R^-p."""
    return np.asarray(r, dtype=float)[:, None] ** -np.arange(POWERS, dtype=float)


def exponents(kind: str) -> list[tuple[int, int, int]]:
    """(power of the first cosine, power of the second, which inverse length: 0 none, 1..3) of each term of two scatterers."""
    if kind == "triangle":
        full = [(a, b, 0) for a in range(7) for b in range(7 - a)]
        return full + [(a, b, leg) for leg in (1, 2, 3) for a in range(4) for b in range(4 - a)]
    return [(a, 0, 0) for a in range(9)] + [(a, 0, leg) for leg in (1, 2) for a in range(5)]


def path_terms(kind: str, near, far, across):
    """Half length [m], legs' product [m] and terms [m, b] of paths over scatterers j and k; NumPy or JAX arrays alike.

    ``near`` = r_aj, ``far`` = r_ak, ``across`` = r_jk, A. "triangle": a-j-k-a; "bounce": a-j-a-k-a; "through": a-j-k-j-a.
    """
    cosine_a = (near**2 + far**2 - across**2) / (2 * near * far)
    cosine_j = (near**2 + across**2 - far**2) / (2 * near * across)
    cosine_k = (far**2 + across**2 - near**2) / (2 * far * across)
    half, product, first, second, inverse = {
        "triangle": ((near + far + across) / 2, near * far * across, cosine_j, cosine_k, (1 / near, 1 / far, 1 / across)),
        "bounce": (near + far, near**2 * far**2, cosine_a, cosine_a, (1 / near, 1 / far)),
        "through": (near + across, near**2 * across**2, cosine_j, cosine_j, (1 / near, 1 / across)),
    }[kind]
    columns = []
    for a, b, leg in exponents(kind):
        term = first**a * second**b if b else first**a
        columns.append(term * inverse[leg - 1] if leg else term * (1.0 + 0.0 * near))
    return half, product, columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScatteringTable:
    """Tables of one absorber and edge.

    Attributes:
      absorber: element.
      edge: "K", ...
      elements: of the material, sorted; scatterers.
      k: [n] 1/A.
      mean_free_path: [n] A.
      number_density: atoms/A^3, rho_t, the mean over the structures of the fit.
      single: {element: complex [2, POWERS, n]} after removal of ``phases``.
      phases: {element: [n] rad}, reference phase of each scatterer.
      shortest: {element: A} of the fit.
      back: {element: complex [POWERS, n]} of a-j-a-j-a, without reference phase, on ``k``.
      double: {(kind, j, k): complex [b, nc]} on `KCOARSE`.
      mean_chi: [n] chi(k) averaged over the sites of the fit, single scattering.
      reach: A, half length of the paths of the fit.
      reach_multiple: A, the same of multiple scattering; 0 without.
      card: facts about how it was made.
    """

    absorber: str
    edge: str
    elements: tuple[str, ...]
    k: np.ndarray
    mean_free_path: np.ndarray
    number_density: float
    single: dict
    phases: dict
    shortest: dict
    back: dict
    double: dict
    mean_chi: np.ndarray
    reach: float
    reach_multiple: float
    card: dict

    def amplitude(self, k, r, scatterer: str, number_density: float) -> np.ndarray:
        """F exp(-2 R / lambda) [len(k), len(r)] of single scattering, complex; distances below the shortest met count as that one."""
        k, r = np.asarray(k, dtype=float), np.maximum(np.asarray(r, dtype=float), self.shortest[scatterer])
        density = np.array([1.0, np.clip(number_density / self.number_density - 1.0, -0.3, 0.3)])
        coefficients = np.einsum("d,dpn->pn", density, self.single[scatterer]) * np.exp(1j * self.phases[scatterer])
        f = _onto(self.k, coefficients, k).T @ radial_terms(r).T
        return f * np.exp(-2.0 * r[None] / self.wavelength(k)[:, None])

    def back_amplitude(self, k, r, scatterer: str) -> np.ndarray:
        """The same [len(k), len(r)] of a-j-a-j-a, whose half length is 2 r."""
        r = np.maximum(np.asarray(r, dtype=float), self.shortest[scatterer])
        f = _onto(self.k, self.back[scatterer], k).T @ radial_terms(r).T
        return f * np.exp(-4.0 * r[None] / self.wavelength(k)[:, None])

    def wavelength(self, k) -> np.ndarray:
        """lambda(k) [m], the mean free path, A."""
        return np.interp(k, self.k, self.mean_free_path)

    def double_coefficients(self, k, kind: str, first: str, second: str) -> np.ndarray | None:
        """Coefficients [b, m] of paths over ``first`` and ``second``, or None where the fit met none."""
        found = self.double.get((kind, first, second))
        return None if found is None else _onto(KCOARSE, found, k)


def _onto(grid, values, k) -> np.ndarray:
    """Complex ``values`` [..., n] on ``grid`` by cubic spline at k."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(grid, values, axis=-1)(np.clip(k, grid[0], grid[-1]))


def save_table(table: ScatteringTable, path) -> None:
    """Write one table (float32, a zip of arrays with a JSON header)."""
    header = {name: getattr(table, name) for name in ("absorber", "edge", "number_density", "shortest", "reach", "reach_multiple", "card")}
    header |= dict(format=FORMAT, elements=list(table.elements))
    arrays = dict(k=table.k, mean_free_path=table.mean_free_path, mean_chi=table.mean_chi)
    arrays |= {f"single/{e}": v for e, v in table.single.items()} | {f"phases/{e}": v for e, v in table.phases.items()}
    arrays |= {f"back/{e}": v for e, v in table.back.items()} | {f"double/{'/'.join(key)}": v for key, v in table.double.items()}
    small = {name: value.astype(np.complex64 if np.iscomplexobj(value) else np.float32) for name, value in arrays.items()}
    write_arrays(path, header, small)


def load_table(path) -> ScatteringTable:
    """The inverse of `save_table`.

    Raises:
      FileNotFoundError, ValueError: no such file, or no such table.
    """
    try:
        header, arrays = read_arrays(path)
    except CorruptedArchive as error:
        raise ValueError(f"{path}: got a corrupted scattering table ({error}); make it again with `glassjax exafs-table`") from error
    if header.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: got a file of another format; needs {FORMAT!r}, as `glassjax exafs-table` writes it")
    wide = {n: v.astype(complex if np.iscomplexobj(v) else float) for n, v in arrays.items()}
    header["elements"] = tuple(header["elements"])

    def group(name):
        return {key.removeprefix(f"{name}/"): value for key, value in wide.items() if key.startswith(f"{name}/")}

    double = {tuple(key.split("/")): value for key, value in group("double").items()}
    parts = {name: group(name) for name in ("single", "phases", "back")}
    return ScatteringTable(**header, **{n: wide[n] for n in ("k", "mean_free_path", "mean_chi")}, **parts, double=double)


def shipped_tables() -> dict[str, Path]:
    """Files of the shipped tables by name "Cu-Zr_Cu_K"."""
    return {p.stem.removeprefix("exafs_"): p for p in sorted(FOLDER.glob("exafs_*.npz"))}


@functools.lru_cache(maxsize=32)
def _loaded(path: str) -> ScatteringTable:
    return load_table(path)


def find_table(elements, absorber: str, edge: str, path=None) -> ScatteringTable:
    """The table of ``absorber``'s ``edge`` in a material of ``elements``: from ``path``, or shipped (the smallest material that has them all).

    Raises:
      ValueError: the absorber is not in the material; no table for it; the file is for another edge or lacks a scatterer.
    """
    if absorber not in elements:
        raise ValueError(f"got edge {absorber}:{edge}, but the structure has {', '.join(elements)}; needs one of these as absorber")
    if path is not None:
        found = _loaded(str(path))
        if (found.absorber, found.edge) != (absorber, edge) or not set(elements) <= set(found.elements):
            raise ValueError(
                f"{path}: got a table of {found.absorber}:{found.edge} of {'-'.join(found.elements)}; needs {absorber}:{edge} of "
                f"{'-'.join(elements)}; make it with `glassjax exafs-table`"
            )
        return found
    known = shipped_tables()
    fits = [n for n in known if n.endswith(f"_{absorber}_{edge}") and set(elements) <= set(n.split("_")[0].split("-"))]
    if not fits:
        have = ", ".join(f"{n.split('_')[1]}:{n.split('_')[2]} in {n.split('_')[0]}" for n in known) if known else "none"
        raise ValueError(
            f"got edge {absorber}:{edge} in a material of {', '.join(elements)}; needs one of the shipped tables, {have}; or make one "
            "from structures with `glassjax exafs-table`"
        )
    return _loaded(str(known[min(fits, key=lambda n: (len(n.split("_")[0].split("-")), n))]))


def wavenumbers_within(k, table: ScatteringTable) -> None:
    """Refuse wavenumbers that the table does not hold."""
    top = float(table.k[-1])
    if not (np.isfinite(k).all() and k[0] > 0 and k[-1] <= top):
        raise ValueError(
            f"got k from {k[0]:g} to {k[-1]:g} 1/A; the table of {table.absorber}:{table.edge} serves 0 to {top:g}; cut the range with kmax"
        )


def shifted(k, e0_shift: float) -> np.ndarray:
    """k' of FEFF for the k of data: k'^2 = k^2 - e0_shift / 3.81 A^2 eV, at least 0.05 1/A; ``e0_shift`` = E0 of FEFF - E0 of the data, eV."""
    return np.sqrt(np.maximum(np.asarray(k, dtype=float) ** 2 - e0_shift / HBAR2_OVER_2M, 0.05**2))


HBAR2_OVER_2M = 3.809982  # eV A^2 (CODATA 2018: hbar^2 / 2 m_e)


def align_edge(
    k, chi, table: ScatteringTable, *, kmin: float, kmax: float, kweight: float = 2, shift: float | None = None
) -> tuple[float, float, float]:
    """(e0_shift in eV, S0^2, sigma^2 in A^2) that bring the mean chi(k) of the table's own structures closest to the data.

    A grid of shifts from -20 to 20 eV and of sigma^2 from 0 to 0.012 A^2, S0^2 by least squares for each: a start for inference, not a
    result. ``shift`` fixes the first.
    """
    k, chi = np.asarray(k, dtype=float), np.asarray(chi, dtype=float)
    inside = (k >= kmin) & (k <= kmax)
    at, wanted = k[inside], (chi * k**kweight)[inside]
    best = (math.inf, 0.0, 1.0, 0.0)
    for one in np.arange(-20.0, 20.01, 0.5) if shift is None else (shift,):
        moved = shifted(at, one)
        for mean_square in np.arange(0.0, 0.0121, 0.002):
            model = at**kweight * np.interp(moved, table.k, table.mean_chi) * np.exp(-2 * moved**2 * mean_square)
            scale = float(np.clip(model @ wanted / max(model @ model, 1e-12), 0.3, 1.5))
            best = min(best, (float(np.sum((wanted - scale * model) ** 2)), float(one), scale, float(mean_square)))
    return best[1:]
