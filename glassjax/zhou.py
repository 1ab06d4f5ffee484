"""The Zhou-Johnson-Wadley embedded-atom potentials of sixteen metals and all their alloys, written as LAMMPS ``eam/alloy`` (setfl) files.

Energy of a set of atoms, with r in A and E in eV:

    E = sum_i F_i(rho_i) + 1/2 sum_{i != j} phi_ij(r_ij),    rho_i = sum_{j != i} f_j(r_ij)
    f(r) = fe exp(-beta (r/re - 1)) / (1 + (r/re - lambda)^20)
    phi_aa(r) = A exp(-alpha (r/re - 1)) / (1 + (r/re - kappa)^20) - B exp(-beta (r/re - 1)) / (1 + (r/re - lambda)^20)
    phi_ab(r) = 1/2 (f_b/f_a phi_aa + f_a/f_b phi_bb)                                     the alloy rule (Johnson 1989)
    F(rho) = sum_i Fn_i (rho/rho_n - 1)^i,    rho < rho_n = 0.85 rhoe                      i = 0..3
           = sum_i F_i (rho/rhoe - 1)^i,      rho_n <= rho < rho_o = 1.15 rhoe             i = 0..3
           = Fe (1 - eta ln(rho/rhos)) (rho/rhos)^eta,    rho_o <= rho

Parameters: X. W. Zhou, R. A. Johnson and H. N. G. Wadley, Phys. Rev. B 69, 144113 (2004), table III (which revises the fcc metals of Zhou et al.,
Acta Mater. 49, 4005 (2001)). They were fitted to the pure metals alone. The alloys follow from the rule, and their chemistry can be wrong: the B2
compounds ZrNi, NiAl and ZrAl form with -0.64, +0.07 and +0.07 eV per atom, where the real compounds of these pairs lie near -0.5, -0.6 and -0.5.
A quenched Zr-Ni-Al therefore has many Zr-Ni and too few Ni-Al and Zr-Al neighbours: a reference to test methods on, not a model of the alloy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from glassjax.elements import atomic_mass, atomic_number

SOURCE = "Zhou, Johnson and Wadley, Phys. Rev. B 69, 144113 (2004)"
_CLOSEST = 0.5  # A

# symbol, crystal, re, fe, rhoe, rhos, alpha, beta, A, B, kappa, lambda
_PAIR = """
Cu fcc 2.556162 1.554485 21.175871 21.175395   8.12762 4.334731  0.39662 0.548085 0.308782 0.756515
Ag fcc 2.891814 1.106232   14.6041 14.604144   9.13201 4.870405 0.277758 0.419611  0.33971 0.750758
Au fcc 2.885034 1.529021 19.991632 19.991509  9.516052 5.075228 0.229762 0.356666  0.35657 0.748798
Ni fcc 2.488746 2.007018 27.562015 27.562031  8.383453 4.471175 0.429046 0.633531 0.443599 0.820658
Pd fcc 2.750897 1.595417 21.335246 21.940073  8.697397 4.638612 0.406763  0.59888 0.397263 0.754799
Pt fcc 2.771916 2.336509 33.367564 35.205357  7.105782  3.78975 0.556398 0.696037 0.385255  0.77051
Al fcc 2.863924 1.403115 20.418205  23.19574  6.613165 3.527021 0.314873 0.365551 0.379846 0.759692
Pb fcc 3.499723 0.647872  8.450154  8.450063  9.121799 5.212457 0.161219 0.236884 0.250805 0.764955
Fe bcc 2.481987 1.885957 20.041463 20.041463   9.81827 5.236411 0.392811 0.646243 0.170306 0.340613
Mo bcc   2.7281  2.72371 29.354065 29.354065  8.393531  4.47655 0.708787 1.120373  0.13764  0.27528
Ta bcc 2.860082 3.086341 33.787168 33.787168  8.489528 4.527748 0.611679 1.032101 0.176977 0.353954
W  bcc  2.74084  3.48734 37.234847 37.234847  8.900114 4.746728 0.882435 1.394592 0.139209 0.278417
Mg hcp 3.196291 0.544323    7.1326    7.1326 10.228708 5.455311 0.137518  0.22593      0.5        1
Co hcp 2.505979 1.975299 27.206789 27.206789  8.679625 4.629134 0.421378 0.640107      0.5        1
Ti hcp 2.933872   1.8632 25.565138 25.565138  8.775431  4.68023 0.373601 0.570968      0.5        1
Zr hcp 3.199978 2.230909 30.879991 30.879991   8.55919 4.564902 0.424667 0.640054      0.5        1
"""

# symbol, Fn_0 to Fn_3, F_0 to F_3, eta, Fe
_EMBEDDING = """
Cu -2.170269 -0.263788 1.088878 -0.817603 -2.19 0  0.56183 -2.100595  0.31049 -2.186568
Ag -1.729364 -0.255882  0.91205 -0.561432 -1.75 0 0.744561  -1.15065 0.783924 -1.748423
Au -2.937772 -0.500288 1.601954  -0.83553 -2.98 0 1.706587 -1.134778 1.021095 -2.978815
Ni -2.693513 -0.076445 0.241442 -2.375626  -2.7 0  0.26539 -0.152856  0.44547      -2.7
Pd -2.321006 -0.473983 1.615343 -0.231681 -2.36 0 1.481742 -1.675615     1.13 -2.352753
Pt -1.455568 -2.149952 0.528491  1.222875 -4.17 0 3.010561 -2.420128     1.45 -4.145597
Al -2.807602 -0.301435 1.258562 -1.247604 -2.83 0 0.622245 -2.488244 0.785902 -2.824528
Pb  -1.42237 -0.210107 0.682886 -0.529378 -1.44 0 0.702726 -0.538766  0.93538 -1.439436
Fe -2.534992 -0.059605 0.193065 -2.282322 -2.54 0 0.200269  -0.14877  0.39175 -2.539945
Mo -3.692913 -0.178812  0.38045  -3.13365 -3.71 0 0.875874  0.776222 0.790879 -3.712093
Ta -5.103845 -0.405524 1.112997 -3.585325 -5.14 0 1.640098  0.221375 0.848843 -5.141526
W  -4.946281 -0.148818 0.365057 -4.432406 -4.96 0 0.661935  0.348147 0.582714 -4.961306
Mg -0.896473 -0.044291 0.162232  -0.68995  -0.9 0 0.122838  -0.22601 0.431425 -0.899702
Co -2.541799 -0.219415 0.733381 -1.589003 -2.56 0 0.705845  -0.68714 0.694608 -2.559307
Ti -3.203773 -0.198262 0.683779 -2.321732 -3.22 0 0.608587  -0.75071 0.558572 -3.219176
Zr -4.485793 -0.293129 0.990148 -3.202516 -4.51 0 0.928602  -0.98187 0.597133 -4.509025
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Element:
    """Parameters of one metal, named as in the module's formulas.

    Attributes:
      lattice: "fcc", "bcc" or "hcp", the stable crystal.
      re: nearest-neighbour distance of that crystal, A.
      fe, rhoe, rhos: densities, in the paper's arbitrary unit.
      alpha, beta, kappa, lambda_, eta: dimensionless.
      A, B: pair energies, eV.
      inner, middle: [4] coefficients Fn_i and F_i of the embedding energy, eV.
      Fe: scale of the embedding energy at high density, eV.
      inner_limit: rho_n / rhoe.
    """

    lattice: str
    re: float
    fe: float
    rhoe: float
    rhos: float
    alpha: float
    beta: float
    A: float
    B: float
    kappa: float
    lambda_: float
    inner: tuple[float, ...]
    middle: tuple[float, ...]
    eta: float
    Fe: float
    inner_limit: float = 0.85


def _parse(pair: str, embedding: str) -> tuple[str, Element]:
    symbol, lattice, *numbers = pair.split()
    same, *energies = embedding.split()
    names = ("re", "fe", "rhoe", "rhos", "alpha", "beta", "A", "B", "kappa", "lambda_")
    v = [float(item) for item in energies]
    if same != symbol:
        raise AssertionError(f"rows of {symbol} and {same} do not match")
    # Pt alone: its lower branches meet at 0.25 rhoe (the generator of the authors and OpenMD agree, and only so is F continuous)
    limit = 0.25 if symbol == "Pt" else 0.85
    plain = dict(zip(names, map(float, numbers), strict=True))
    return symbol, Element(lattice=lattice, inner=tuple(v[:4]), middle=tuple(v[4:8]), eta=v[8], Fe=v[9], inner_limit=limit, **plain)


ELEMENTS: dict[str, Element] = dict(map(_parse, _PAIR.strip().split("\n"), _EMBEDDING.strip().split("\n")))


def element(symbol: str) -> Element:
    """Parameters of one metal; ``ValueError`` for one that is not in the table."""
    if symbol not in ELEMENTS:
        raise ValueError(
            f"got element {symbol!r}; needs one of {', '.join(ELEMENTS)}, which the set of Zhou et al. (2004) covers; simulate it elsewhere"
        )
    return ELEMENTS[symbol]


def _decay(ratio, amplitude: float, rate: float, shift: float) -> np.ndarray:
    """amplitude exp(-rate (x - 1)) / (1 + (x - shift)^20) of x = r/re."""
    return amplitude * np.exp(-rate * (ratio - 1.0)) / (1.0 + (ratio - shift) ** 20)


def electron_density(symbol: str, r) -> np.ndarray:
    """f(r), the density that an atom of ``symbol`` lays at distance r ([n], A), in the paper's arbitrary unit; [n] float64."""
    p = element(symbol)
    return _decay(np.asarray(r, dtype=float) / p.re, p.fe, p.beta, p.lambda_)


def pair_energy(first: str, second: str, r) -> np.ndarray:
    """phi(r) in eV of two atoms at distance r ([n], A), by the alloy rule where they differ; [n] float64."""
    r = np.asarray(r, dtype=float)
    if first == second:
        p = element(first)
        return _decay(r / p.re, p.A, p.alpha, p.kappa) - _decay(r / p.re, p.B, p.beta, p.lambda_)
    ratio = electron_density(second, r) / electron_density(first, r)
    return 0.5 * (ratio * pair_energy(first, first, r) + pair_energy(second, second, r) / ratio)


def embedding_energy(symbol: str, density) -> np.ndarray:
    """F(rho) in eV of an atom of ``symbol`` in the density of its neighbours ([n], arbitrary unit, not negative); [n] float64."""
    p = element(symbol)
    density = np.asarray(density, dtype=float)
    if density.size and not density.min() >= 0:
        raise ValueError(f"got an electron density of {density.min():g}; needs values from 0 up; sum electron_density over the neighbours")
    inner = np.polynomial.polynomial.polyval(density / (p.inner_limit * p.rhoe) - 1.0, p.inner)
    middle = np.polynomial.polynomial.polyval(density / p.rhoe - 1.0, p.middle)
    # the logarithm is taken only where its branch is used
    scaled = np.maximum(density, 1.15 * p.rhoe) / p.rhos
    outer = p.Fe * (1.0 - p.eta * np.log(scaled)) * scaled**p.eta
    return np.where(density < p.inner_limit * p.rhoe, inner, np.where(density < 1.15 * p.rhoe, middle, outer))


def cutoff(elements) -> float:
    """Distance at which a file for ``elements`` ends, A: sqrt(5) times the largest re, as in the authors' generator."""
    return float(np.sqrt(5.0) * max(element(symbol).re for symbol in elements))


def crystal_energy(symbol: str, scale: float = 1.0, *, reach: float | None = None) -> float:
    """Energy per atom, eV, of the perfect crystal with nearest-neighbour distance ``scale`` re; hcp has the ideal c/a.

    ``crystal_energy("Ni")`` is minus the cohesive energy. Neighbours count up to ``reach`` (A), by default ``cutoff([symbol])``, which in an fcc
    crystal is exactly the fifth shell: for derivatives with respect to ``scale`` choose a reach between shells, such as 2.2 re.
    """
    p = element(symbol)
    reach = cutoff([symbol]) if reach is None else reach
    basis = {
        "fcc": (np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / np.sqrt(2), np.zeros((1, 3))),
        "bcc": (np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / np.sqrt(3), np.zeros((1, 3))),
        "hcp": (np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]]), np.array([[0, 0, 0], [0, np.sqrt(1 / 3), np.sqrt(2 / 3)]])),
    }
    vectors, atoms = basis[p.lattice]
    steps = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    places = (steps @ vectors)[:, None, :] + atoms[None, :, :]
    r = np.linalg.norm(places.reshape(-1, 3), axis=-1) * scale * p.re
    r = r[(r > 0.1) & (r < reach)]
    return float(embedding_energy(symbol, electron_density(symbol, r).sum()) + 0.5 * pair_energy(symbol, symbol, r).sum())


def write_setfl(path, elements, *, points: int = 2000) -> Path:
    """Write the LAMMPS ``eam/alloy`` file of ``elements``, in their order, with ``points`` rows per function.

    Below 0.5 A the functions keep their value at 0.5 A, as in the authors' generator. Functions end at ``cutoff(elements)`` without a shift: there
    f and phi have fallen to about 1e-4 of their value at re.

    Returns:
      The path.

    Raises:
      ValueError: no element, one twice, one that is not tabulated, or fewer than 100 points.
    """
    elements = tuple(elements)
    if not elements or len(set(elements)) != len(elements):
        raise ValueError(f"got elements {elements}; needs at least one and each once; correct the list")
    if points < 100:
        raise ValueError(f"got {points} points; needs at least 100 for a smooth table; 2000 is usual")
    end = cutoff(elements)
    step = end / (points - 1)
    r = np.maximum(step * np.arange(points), _CLOSEST)
    # atoms of the melt come close, so the embedding table goes far beyond the density of a crystal; LAMMPS continues it as a straight line
    top = max(100.0, *(2.0 * element(s).rhoe for s in elements), *(float(electron_density(s, _CLOSEST)) for s in elements))
    density = np.linspace(0.0, top, points)
    lines = [f"UNITS: metal  glassjax: {SOURCE}", "pure metals as published, pairs of unlike metals by the paper's alloy rule", ""]
    lines += [f"{len(elements)} {' '.join(elements)}", f"{points} {top / (points - 1):.16e} {points} {step:.16e} {end:.16e}"]
    for symbol in elements:
        p = element(symbol)
        side = {"fcc": np.sqrt(2.0), "bcc": 2.0 / np.sqrt(3.0), "hcp": 1.0}[p.lattice] * p.re
        lines.append(f"{atomic_number(symbol)} {atomic_mass(symbol):.4f} {side:.5f} {p.lattice}")
        lines += _rows(embedding_energy(symbol, density)) + _rows(electron_density(symbol, r))
    for index, first in enumerate(elements):
        for second in elements[: index + 1]:
            lines += _rows(step * np.arange(points) * pair_energy(first, second, r))
    path = Path(path)
    path.write_text("\n".join(lines) + "\n")
    return path


def _rows(values) -> list[str]:
    """Five numbers a line."""
    return [" ".join(f"{value:.16e}" for value in values[i : i + 5]) for i in range(0, len(values), 5)]
