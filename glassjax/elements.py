"""Scattering tables and masses by element, with the edition of each table on record; composition and density checks.

Tables are looked up in xraydb and periodictable when a function is called: importing this module loads neither.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from math import ceil

import numpy as np

__all__ = [
    "EDITIONS",
    "atomic_mass",
    "atomic_number",
    "check_density",
    "mass_density",
    "neutron_length",
    "number_density_from_mass",
    "parse_composition",
    "suggest_density_unit",
    "xray_form_factor",
]

# Bound coherent lengths (real part, fm) of V. F. Sears, Neutron News 3(3), 29-37 (1992), for the elements where periodictable, which
# follows the later ATI/Rauch compilation, holds another value. Everything absent here is the same in both.
_SEARS_1992 = {
    "H": -3.7390, "D": 6.671, "He": 3.26, "Li": -1.90, "C": 6.6460, "O": 5.803, "Si": 4.1491, "Cl": 9.5770, "Sc": 12.29, "Ti": -3.438,
    "V": -0.3824, "Mn": -3.73, "Br": 6.795, "Rb": 7.09, "Ru": 7.03, "Rh": 5.88, "Cd": 4.87, "Sn": 6.225, "Te": 5.80, "Xe": 4.92,
    "Pr": 4.58, "Nd": 7.69, "Sm": 0.80, "Eu": 7.22, "Gd": 6.5, "Tb": 7.38, "Ho": 8.01, "Yb": 12.43, "Hf": 7.7, "W": 4.86,
    "Au": 7.63, "Hg": 12.692, "Pb": 9.405, "Bi": 8.532,
}  # fmt: skip

_DENSITY_RANGE = (0.005, 0.25)  # atoms/A^3: below a dense gas, above compressed diamond (0.18)
_AVOGADRO = 0.602214076  # (g/cm^3) / (g/mol) to atoms/A^3


class _Editions(Mapping):
    """Read-only {table: "source; package version"}; the package versions are looked up on access, without importing the packages."""

    _sources = {
        "neutron_length": ("Sears, Neutron News 3(3), 29 (1992), bound coherent, real part", "periodictable"),
        "xray_form_factor": ("Waasmaier & Kirfel, Acta Cryst. A51, 416 (1995), neutral atoms", "xraydb"),
        "atomic_mass": ("periodictable's standard atomic weights", "periodictable"),
    }

    def __getitem__(self, table: str) -> str:
        from importlib.metadata import version

        source, package = self._sources[table]
        suffix = f", with {len(_SEARS_1992)} entries kept in glassjax.elements" if table == "neutron_length" else ""
        return f"{source}; {package} {version(package)}{suffix}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __repr__(self) -> str:
        return repr(dict(self))


EDITIONS: Mapping[str, str] = _Editions()


@cache
def _element(symbol: str):
    """periodictable's entry for a symbol ("D" is deuterium); ValueError for anything else."""
    import periodictable

    if isinstance(symbol, str) and re.fullmatch(r"[A-Z][a-z]?", symbol):
        try:
            return periodictable.elements.symbol(symbol)
        except ValueError:
            pass
    hint = f'write "{symbol.capitalize()}"' if isinstance(symbol, str) and symbol != symbol.capitalize() else "check the spelling"
    raise ValueError(f'got element {symbol!r}; needs a chemical symbol such as "Si"; {hint}')


def atomic_number(symbol: str) -> int:
    """Number of protons. Raises ValueError for an unknown symbol."""
    return int(_element(symbol).number)


def atomic_mass(symbol: str) -> float:
    """Standard atomic weight, g/mol. Raises ValueError for an unknown symbol."""
    return float(_element(symbol).mass)


def neutron_length(symbol: str) -> float:
    """Bound coherent neutron scattering length b (fm, real part) of the natural element, of "D", or of an isotope such as "62Ni".

    Sears 1992 for the elements, periodictable (ATI/Rauch) for other isotopes. Raises ValueError for an unknown symbol or isotope, or one without a
    tabulated length.
    """
    isotope = re.fullmatch(r"(\d+)([A-Z][a-z]?)", symbol) if isinstance(symbol, str) else None
    if isotope is not None:
        return _isotope_length(isotope[2], int(isotope[1]))
    element = _element(symbol)
    if symbol in _SEARS_1992:
        return _SEARS_1992[symbol]
    length = element.neutron.b_c
    if length is None:
        raise ValueError(f"got element {symbol}, which has no neutron scattering length in the table; needs one that has; use X-ray weights")
    return float(length)


def _isotope_length(symbol: str, mass: int) -> float:
    element = _element(symbol)
    if (symbol, mass) == ("H", 2):
        return _SEARS_1992["D"]
    known = [m for m in element.isotopes if element[m].neutron.b_c is not None]
    if mass not in known:
        names = ", ".join(f"{m}{symbol}" for m in known)
        raise ValueError(f"got isotope {mass}{symbol}, which has no neutron scattering length in the table; needs one of {names}; correct the mass")
    return float(element[mass].neutron.b_c)


def xray_form_factor(symbol: str, q) -> np.ndarray:
    """X-ray form factor f(Q) = sum a exp(-b (Q/4pi)^2) + c in electrons, neutral atom, Waasmaier & Kirfel 1995.

    q: [nq] in 1/A, 0 to 75 (the fitted range). Returns [nq], float64. Raises ValueError for an unknown element or q out of range.
    """
    import xraydb

    q = np.asarray(q, dtype=float)
    if q.size and not (np.isfinite(q).all() and q.min() >= 0 and q.max() <= 24 * np.pi):
        raise ValueError(f"got Q from {q.min():g} to {q.max():g} 1/A; needs finite Q from 0 to 75 1/A, as the table covers; cut the range")
    number = atomic_number(symbol)
    if number > 98:
        raise ValueError(f"got element {symbol}, which has no X-ray form factor in the table; needs an element up to Cf; use number weights")
    factors = xraydb.f0("H" if symbol == "D" else symbol, np.ravel(q) / (4 * np.pi))
    return np.asarray(factors, dtype=float).reshape(q.shape)


def parse_composition(composition: str, atoms: int) -> list[str]:
    """Symbols of `atoms` atoms of a formula, in the formula's order: ("SiO2", 6) -> ["Si", "Si", "O", "O", "O", "O"].

    Amounts may be whole ("Cu50Zr50") or decimal ("Cu0.5Zr0.5"). Raises ValueError for a formula that cannot be read, an unknown
    element, or a number of atoms that does not give whole counts (naming the nearest that do).
    """
    if not isinstance(composition, str) or not re.fullmatch(r"(?:[A-Z][a-z]?(?:\d+(?:\.\d*)?|\.\d+)?)+", composition.strip()):
        raise ValueError(f'got composition {composition!r}; needs symbols with amounts, such as "Si", "SiO2" or "Cu50Zr50"; write no brackets')
    if isinstance(atoms, bool) or int(atoms) != atoms or atoms < 1:
        raise ValueError(f"got {atoms!r} atoms; needs a whole number of at least 1; set atoms")
    amounts: dict[str, Fraction] = {}
    for symbol, amount in re.findall(r"([A-Z][a-z]?)([\d.]*)", composition.strip()):
        atomic_number(symbol)
        amounts[symbol] = amounts.get(symbol, Fraction(0)) + (Fraction(amount) if amount else Fraction(1))
    if min(amounts.values()) <= 0:
        raise ValueError(f"got composition {composition!r} with an amount of zero; needs positive amounts; leave that element out")
    total = sum(amounts.values())
    counts = {symbol: amount / total * int(atoms) for symbol, amount in amounts.items()}
    if any(count.denominator != 1 for count in counts.values()):
        unit = int(np.lcm.reduce([(amount / total).denominator for amount in amounts.values()]))
        above = ceil(atoms / unit) * unit
        nearest = f"{above - unit} or {above}" if above > unit else f"{above}"
        raise ValueError(f"got {atoms} atoms of {composition}; needs whole counts, so a multiple of {unit} atoms; set atoms to {nearest}")
    return [symbol for symbol, count in counts.items() for _ in range(int(count))]


def _mean_mass(symbols: Sequence[str]) -> float:
    if isinstance(symbols, str) or len(symbols) == 0:
        raise ValueError(f'got symbols {symbols!r}; needs one symbol per atom (or per formula atom), such as ["Si", "O", "O"]; pass a list')
    return sum(atomic_mass(symbol) for symbol in symbols) / len(symbols)


def number_density_from_mass(symbols: Sequence[str], density: float) -> float:
    """Atoms per A^3 from a mass ``density`` in g/cm^3; symbols: one per atom."""
    return float(density * _AVOGADRO / _mean_mass(symbols))


def mass_density(symbols: Sequence[str], number_density: float) -> float:
    """g/cm^3 from atoms per A^3; symbols: one per atom."""
    return float(number_density * _mean_mass(symbols) / _AVOGADRO)


def suggest_density_unit(value: float, kind: str, symbols: Sequence[str]) -> str | None:
    """The other unit in which an implausible density makes sense: a sentence, or None when nothing is wrong or nothing would help.

    value: the density as given; kind: "number" (atoms/A^3) or "mass" (g/cm^3); symbols: one per atom.
    """
    if kind not in ("number", "mass"):
        raise ValueError(f'got kind {kind!r}; needs "number" (atoms/A^3) or "mass" (g/cm^3); pass one of them')
    low, high = _DENSITY_RANGE
    factor = _AVOGADRO / _mean_mass(symbols)
    as_number, as_mass = low <= value <= high, low <= value * factor <= high
    if kind == "number" and not as_number and as_mass:
        return f"{value:g} looks like a mass density in g/cm^3, which would be {value * factor:.5g} atoms/A^3"
    if kind == "mass" and not as_mass and as_number:
        return f"{value:g} looks like a number density in atoms/A^3, which would be {value / factor:.4g} g/cm^3"
    return None


def check_density(symbols: Sequence[str], number_density: float | None = None, *, mass_density: float | None = None) -> float:
    """Number density (atoms/A^3) of one of number_density (atoms/A^3) or mass_density (g/cm^3), refused outside 0.005-0.25 atoms/A^3.

    symbols: one per atom (only their proportions matter). Raises ValueError when neither or both are given, or when the value is
    implausible, saying so if it reads like the other unit.
    """
    if (number_density is None) == (mass_density is None):
        got = "neither a mass density nor a number density" if number_density is None else "both a mass density and a number density"
        raise ValueError(f"got {got}; needs exactly one; pass --density (g/cm^3) or --number-density (atoms/A^3)")
    kind, given, unit = ("number", number_density, "atoms/A^3") if mass_density is None else ("mass", mass_density, "g/cm^3")
    value = float(given)
    factor = _AVOGADRO / _mean_mass(symbols)
    density = value if kind == "number" else value * factor
    low, high = _DENSITY_RANGE
    if low <= density <= high:
        return density
    scale = 1.0 if kind == "number" else 1 / factor
    suggestion = suggest_density_unit(value, kind, symbols)
    other = "--density (g/cm^3)" if kind == "number" else "--number-density (atoms/A^3)"
    do = f"{suggestion}: pass it as {other}" if suggestion else "check the value and its unit"
    raise ValueError(f"got a {kind} density of {value:g} {unit}; needs {low * scale:.3g} to {high * scale:.3g} {unit} for these elements; {do}")
