"""FEFF on one site of a periodic structure: its input, the programs, and what they write.

EXAFS comes from FEFF8L (Ankudinov et al., Phys. Rev. B 58, 7565 (1998); the edition in PyPI's xraylarch, extra ``[xas]``), XANES from a
FEFF executable of the user's own, because FEFF8L ignores the cards FMS and XANES without a word. Potentials of FEFF8L are overlapped
free atoms, not self-consistent. Many sites and structures at once: `glassjax.labelling`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from glassjax.elements import atomic_number
from glassjax.io.feff import FeffPath, path_chi, read_chi, read_mu, read_path
from glassjax.structure import Structure, heights

__all__ = ["Feff", "FeffError", "FeffPath", "LabelSettings", "SiteResult", "check_feff", "find_feff", "neighbourhood"]
__all__ += ["path_chi", "read_chi", "read_mu", "read_path", "run_input", "run_site", "write_input"]

MODULES = (  # of FEFF8L in order, with the file that tells that the step went well: the programs return 0 when they fail
    ("rdinp", "geom.json"), ("pot", "pot.pad"), ("xsph", "phase.pad"), ("pathfinder", "paths.dat"), ("genfmt", "list.dat"), ("ff2x", "chi.dat"),
)  # fmt: skip
MOST_ATOMS = 1000  # of FEFF8L's cluster (natx in its dim.h), the absorber included
SHORTEST_KMAX, LONGEST_KMAX = 20.0, 26.0  # 1/A: FEFF's chi.dat never ends earlier, and FEFF calls its phase shifts accurate up to here
XANES_KMAX = 10.0  # 1/A: full multiple scattering keeps too few angular momenta beyond


class FeffError(RuntimeError):
    """FEFF failed on one site; the message holds the end of the failing program's log."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feff:
    """A FEFF to run.

    Attributes:
      name: of the program.
      version: of the package it came with, and a digest of the program files.
      programs: to run one after another in a folder with feff.inp.
      modular: these are the six programs of FEFF8L, which computes EXAFS only.
    """

    name: str
    version: str
    programs: tuple[Path, ...]
    modular: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """What FEFF shall compute; raises ``ValueError`` for what it cannot.

    Attributes:
      element: of the absorbers.
      edge: "K", "L1", ..., of that element.
      kind: "exafs" or "xanes".
      reach: A; half the length of the longest path (EXAFS), or the radius of full multiple scattering (XANES).
      legs: of the longest path: 2 is single scattering.
      cluster: radius of the atoms given to FEFF, A; by default reach + 1.5, so that the outer atoms have neighbours that make their potential.
      kmax: end of the curves, 1/A; by default 20 (EXAFS, at most 26) or 8 (XANES, at most 10).
      scf: radius of the self-consistent potential, A (XANES only).
    """

    element: str
    edge: str = "K"
    kind: str = "exafs"
    reach: float = 6.0
    legs: int = 2
    cluster: float | None = None
    kmax: float | None = None
    scf: float = 5.0

    def __post_init__(self):
        if self.kind not in ("exafs", "xanes"):
            raise ValueError(f"got kind {self.kind!r}; needs exafs or xanes; name one of them")
        if self.kmax is None:
            object.__setattr__(self, "kmax", 20.0 if self.kind == "exafs" else 8.0)
        atomic_number(self.element)
        known = _edges(self.element)
        if self.edge not in known:
            raise ValueError(f"got edge {self.edge!r} of {self.element}; needs one that it has; choose among {', '.join(known)}")
        for name in ("reach", "kmax", "scf"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"got {name} {getattr(self, name)}; needs a positive number; leave it out for the default")
        if self.legs not in range(2, 9):
            raise ValueError(f"got {self.legs} legs; needs a whole number from 2 (single scattering) to 8; pass legs=2 to 4")
        if self.cluster is not None and not self.reach <= self.cluster < np.inf:
            raise ValueError(f"got a cluster of {self.cluster} A; needs the reach of {self.reach} A inside it; leave it out for reach + 1.5")
        most = LONGEST_KMAX if self.kind == "exafs" else XANES_KMAX
        if self.kmax > most:
            raise ValueError(f"got kmax {self.kmax} 1/A; needs at most {most:g} for {self.kind}, where FEFF's physics ends; pass a smaller one")

    @property
    def radius(self) -> float:
        """Radius of the cluster given to FEFF, A."""
        return self.reach + 1.5 if self.cluster is None else self.cluster


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiteResult:
    """What FEFF says about one absorber: ``k`` [m] 1/A and ``chi`` [m] (EXAFS), or ``energy`` [m] eV and ``mu`` [m] (XANES); the rest is None.

    ``fermi_level`` (eV, from the vacuum) is where k = 0; it differs from site to site. ``paths`` are there where asked for; ``notes`` are FEFF's
    warnings.
    """

    k: np.ndarray | None = None
    chi: np.ndarray | None = None
    energy: np.ndarray | None = None
    mu: np.ndarray | None = None
    paths: list[FeffPath] | None = None
    fermi_level: float = float("nan")
    notes: tuple[str, ...] = ()


def find_feff(executable=None) -> Feff:
    """The FEFF to use: ``executable``, else the one that GLASSJAX_FEFF names, else the FEFF8L of PyPI's xraylarch.

    Args:
      executable: a program that reads feff.inp in its working folder and writes xmu.dat and chi.dat there; or a folder of FEFF8L's programs.

    Raises:
      FileNotFoundError: there is none.
    """
    given = os.environ.get("GLASSJAX_FEFF") if executable is None else executable
    if given:
        found = shutil.which(str(given))
        if Path(given).is_dir():
            return _modular(Path(given), "")
        if found is None:
            raise FileNotFoundError(f"got {given} as FEFF; needs an executable program; check the path and its permission, or unset GLASSJAX_FEFF")
        program = Path(found).absolute()
        return Feff(name=program.name, version=_digest([program]), programs=(program,), modular=False)
    spec = importlib.util.find_spec("larch")  # its folder; importing it costs seconds and packages that are not needed here
    kind = {"linux": "linux64", "darwin": "darwin64", "win32": "win64"}.get(sys.platform)
    places = [Path(place) / "bin" / kind for place in (spec.submodule_search_locations if spec else ())] if kind else []
    for place in places:
        if place.is_dir():
            return _modular(place, f"xraylarch {importlib.metadata.version('xraylarch')}, ")
    raise FileNotFoundError("got no FEFF; needs one to label structures; `pip install glassjax[xas]` for EXAFS, or set GLASSJAX_FEFF to your own")


def _modular(folder: Path, version: str) -> Feff:
    """The FEFF8L whose six programs lie in a folder."""
    ending = ".exe" if sys.platform == "win32" else ""
    programs = [folder / f"feff8l_{name}{ending}" for name, _ in MODULES]
    if missing := [program.name for program in programs if not program.is_file()]:
        raise FileNotFoundError(f"got no {', '.join(missing)} in {folder}; needs all programs of FEFF8L; `pip install glassjax[xas]` brings them")
    return Feff(name="FEFF8L", version=version + _digest(programs), programs=tuple(program.absolute() for program in programs), modular=True)


def _digest(programs: list[Path]) -> str:
    return "sha256 " + hashlib.sha256(b"".join(program.read_bytes() for program in programs)).hexdigest()[:16]


def _edges(element: str) -> list[str]:
    import xraydb

    return list(xraydb.xray_edges(element) or ())


def write_input(structure: Structure, site: int, settings: LabelSettings) -> str:
    """The text of feff.inp for one absorber and its periodic neighbourhood; equal surroundings give equal text.

    Raises ``ValueError`` where atom ``site`` is not there or not the settings' element, or has no neighbour within the reach.
    """
    symbols = structure.symbols
    if not 0 <= site < len(symbols) or int(structure.species[site]) < 0 or symbols[site] != settings.element:
        raise ValueError(f"got site {site}; needs the index of an atom of {settings.element}, of {len(symbols)} atoms; choose another")
    vectors, owners = neighbourhood(structure, site, settings.radius)
    if not len(vectors) or np.linalg.norm(vectors[0]) >= settings.reach:
        raise ValueError(f"got no neighbour of atom {site} within {settings.reach} A; needs one to scatter from; raise the reach or check the cell")
    around = [symbols[i] for i in owners]
    kinds = sorted(set(around), key=atomic_number)
    lines = [f"TITLE {settings.element} {settings.edge} {settings.kind}", f"EDGE {settings.edge}", "S02 1.0", "CONTROL 1 1 1 1 1 1"]
    lines += ["PRINT 0 0 0 0 0 3", "EXCHANGE 0"]
    if settings.kind == "exafs":
        longest = max(settings.kmax, SHORTEST_KMAX)
        lines += [f"RPATH {settings.reach:.4f}", f"NLEG {int(settings.legs)}", "CRITERIA 0.0 0.0", f"EXAFS {longest:g}"]
    else:  # the path expansion is switched off by a path length that no path has
        lines += [f"SCF {settings.scf:.4f}", f"FMS {settings.reach:.4f}", "RPATH 0.1", f"XANES {settings.kmax:g}"]
    lines += ["POTENTIALS", f" 0 {atomic_number(settings.element)} {settings.element}"]
    lines += [f" {number} {atomic_number(symbol)} {symbol}" for number, symbol in enumerate(kinds, start=1)]
    lines += ["ATOMS", " 0.00000 0.00000 0.00000 0"]
    lines += [" {:.5f} {:.5f} {:.5f} {}".format(*(vector + 0.0), kinds.index(symbol) + 1) for vector, symbol in zip(vectors, around, strict=True)]
    return "\n".join([*lines, "END", ""])


def neighbourhood(structure: Structure, site: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [m, 3] (A) from atom ``site`` to every periodic image nearer than ``radius``, nearest first, and the atoms [m] that they belong to.

    All images count, those of the atom itself too, so small cells are right.
    """
    positions, cell = np.asarray(structure.positions, dtype=float), np.asarray(structure.cell, dtype=float)
    filled = np.flatnonzero(np.asarray(structure.species) >= 0)
    fractions = (positions[filled] - positions[site]) @ np.linalg.inv(cell)
    fractions -= np.round(fractions)
    most = np.floor(radius / heights(cell) + 0.5).astype(int)
    shifts = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), axis=-1).reshape(-1, 3)
    vectors = np.round(((fractions[None] + shifts[:, None]) @ cell).reshape(-1, 3), 5)
    owners = np.tile(filled, len(shifts))
    distances = np.linalg.norm(vectors, axis=1)
    itself = (owners == site) & np.repeat(~shifts.any(axis=1), len(filled))
    keep = np.flatnonzero((distances < radius) & ~itself)
    order = keep[np.lexsort((*vectors[keep].T, np.round(distances[keep], 4)))]
    return vectors[order], owners[order]


def run_site(feff: Feff, structure: Structure, site: int, settings: LabelSettings, folder=None, paths: bool = False) -> SiteResult:
    """Run FEFF for one absorber.

    Args:
      folder: where FEFF's files stay; by default a temporary one that is removed.
      paths: read the scattering paths too (EXAFS).

    Raises:
      ValueError: the FEFF, the site or the settings do not fit.
      FeffError: FEFF failed.
    """
    check_feff(feff, settings)
    result = run_input(feff, write_input(structure, site, settings), settings, folder, paths)
    if result.k is None:
        return result
    points = int(np.searchsorted(result.k, settings.kmax + 1e-6))
    return dataclasses.replace(result, k=result.k[:points], chi=result.chi[:points])


def check_feff(feff: Feff, settings: LabelSettings) -> None:
    """Raise ``ValueError`` where XANES is asked of FEFF8L."""
    if settings.kind == "xanes" and feff.modular:
        raise ValueError(
            f"got {feff.name} for XANES, which computes EXAFS only; needs a FEFF executable of your own; set GLASSJAX_FEFF or --feff to its path"
        )


def run_input(feff: Feff, text: str, settings: LabelSettings, folder=None, paths: bool = False) -> SiteResult:
    """Run FEFF on the text of a feff.inp; see `run_site`."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="feff-") as place:
            return run_input(feff, text, settings, place, paths)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feff.inp").write_text(text)
    wanted = "chi.dat" if settings.kind == "exafs" else "xmu.dat"
    products = [product for _, product in MODULES] if feff.modular else [wanted]
    notes = []
    for program, product in zip(feff.programs, products, strict=True):
        notes += _run_program(program, product, folder, feff.modular)
    try:
        return _read_results(folder, wanted, paths and settings.kind == "exafs", tuple(dict.fromkeys(notes)))
    except ValueError as error:
        raise FeffError(f"{feff.name} wrote results that cannot be read: {error}") from error


def _run_program(program: Path, product: str, folder: Path, modular: bool) -> list[str]:
    """Run one program; its warnings. Raises `FeffError` with the end of its log where its product is missing."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if modular:
        environment |= {name: str(program.parent) for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")}
    (folder / product).unlink(missing_ok=True)
    try:
        done = subprocess.run([program], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise FeffError(f"{program.name} cannot be run: {error}") from error
    log = [" ".join(line.split()) for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
    log = [line for line in log if not re.match(r"Note: The following floating-point|#\d+ ", line)]  # nor a backtrace
    if done.returncode != 0 or not (folder / product).is_file():
        raise FeffError(f"{program.name} wrote no {product} (status {done.returncode}): {' / '.join(log[-4:])}")
    # FEFF8L's pathfinder does not know the cluster's radius and warns every time; `LabelSettings` sees to it that the cluster holds the reach
    return [line for line in log if "WARNING" in line.upper() and "rmax > distance" not in line]


def _read_results(folder: Path, wanted: str, paths: bool, notes: tuple[str, ...]) -> SiteResult:
    level = re.search(r"Mu=\s*([-+.\dEe]+)", (folder / wanted).read_text(errors="replace"))
    common = dict(fermi_level=float(level[1]) if level else float("nan"), notes=notes)
    if wanted == "xmu.dat":
        energy, mu = read_mu(folder / wanted)
        return SiteResult(energy=energy, mu=mu, **common)
    k, chi = read_chi(folder / wanted)
    files = sorted(file for file in folder.glob("feff*.dat") if re.fullmatch(r"feff\d+\.dat", file.name)) if paths else None
    return SiteResult(k=k, chi=chi, paths=None if files is None else [read_path(file) for file in files], **common)
