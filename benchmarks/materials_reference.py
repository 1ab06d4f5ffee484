"""The reference ensembles of the benchmark over five materials: which cells there are, in which order they are made, and how they are kept.

A *condition* is what the paper varies within one material (density, cooling rate or composition); a *cell* is one replica of a condition, its own
melt-quench from its own random packing. All follow ``glassjax.melt_quench.published``: 50 ps at 5000 K, cooled to 300 K at one rate (100 K/ps but
for two conditions of silica), 1 fs steps, constant volume, and the frame 4 ps later.

    silicon, carbon   216 atoms at 1.5, 2.0, 2.5, 3.0 and 3.5 g/cm3; Tersoff
    silica            100 SiO2 at 2.20 g/cm3 (the measured density of silica glass), cooled at 100, 10 and 1 K/ps; Munetoh
    cu-zr             500 atoms, Cu_x Zr_(100-x), x = 20, 30 ... 80; Mendelev
    zr-ni-al          500 atoms in the 25 distinct ratios of whole numbers from 1 to 3, counts rounded; Zhou-Johnson-Wadley

Priors are trained on other cells of one condition each (2.5 g/cm3, 100 K/ps, Cu50Zr50, Zr1Ni1Al1), made the same way from other seeds:
``TRAINING``; of each the six frames 1 ps apart that follow the quench, and ``MORE`` of molecular dynamics at 300 K that begins with new velocities
from the last of them (`glassjax.melt_quench.thermal_frames`, 0.5 ps apart). No reference cell is ever trained on.

The paper names 25 Zr-Ni-Al ratios; its list was not to be had. Ratios of 1, 2 and 3 are 25 (27 less 2:2:2 and 3:3:3) and hold the equiatomic one,
on which its prior was trained, so they are used here. Its potential was not to be had either: the one used instead gives Zr-Ni-Al too few Al-Ni
and Al-Zr neighbours (see ``glassjax.zhou`` and the part ``check``).

The metals' densities are those of the glass at 300 K and zero pressure in the same potential: the volume per atom v = sum_ab x_a x_b V_ab was
fitted to one constant-pressure melt-quench of 250 atoms per composition (all 7 of Cu-Zr, to 0.21 % rms; the 10 of Zr-Ni-Al that span the
triangle, to 0.14 %); ``python benchmarks/materials.py densities`` remakes ``VOLUMES``. What the paper did is not said where it could be read.
"""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import math
import time
from pathlib import Path

import numpy as np

from glassjax.elements import mass_density
from glassjax.melt_quench import melt_quench, published, thermal_frames

REPLICAS = 10
FEWEST = 4
DENSITIES = (1.5, 2.0, 2.5, 3.0, 3.5)
SPANNING = 10  # ratios of Zr-Ni-Al that span the triangle: made first, and the ones whose density was measured
DATA = Path(__file__).parent / "data"

# V_ab of the volume per atom v = sum_ab x_a x_b V_ab, A^3
VOLUMES = {
    "cu-zr": {("Cu", "Cu"): 12.243, ("Cu", "Zr"): 17.929, ("Zr", "Zr"): 23.954},
    "zr-ni-al": {("Zr", "Zr"): 24.631, ("Zr", "Ni"): 14.688, ("Zr", "Al"): 20.803, ("Ni", "Ni"): 11.064, ("Ni", "Al"): 13.837, ("Al", "Al"): 18.548},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """One column of the table.

    Attributes:
      material: name of the material, a key of ``MATERIALS``.
      label: name of the condition within the material, also in file names.
      symbols: chemical symbol per atom.
      density: mass density, g/cm3.
      seed: seed of replica 0; replica i has ``seed + i``.
      rate: cooling rate, K/ps.
      tier: cells of tier 0 are made first, then those of tier 1, ...
    """

    material: str
    label: str
    symbols: tuple[str, ...]
    density: float
    seed: int
    rate: float = 100.0
    tier: int = 0

    @property
    def frames(self) -> int:
        """Frames of one cell."""
        return SNAPSHOTS + MORE if self.label == "training" else 1

    def path(self, state: Path, replica: int) -> Path:
        """File of one finished cell."""
        return state / self.material / f"{self.label}_{replica}.extxyz"


def counts(ratio, atoms: int) -> list[int]:
    """Whole counts that sum to ``atoms`` and are nearest to ``ratio`` (largest remainders; ties go to the first)."""
    shares = np.asarray(ratio, dtype=float) * atoms / sum(ratio)
    whole = np.floor(shares).astype(int)
    for index in np.argsort(whole - shares, kind="stable")[: atoms - whole.sum()]:
        whole[index] += 1
    return whole.tolist()


def volume_per_atom(material: str, elements, fractions) -> float:
    """v = sum_ab x_a x_b V_ab, A^3 per atom."""
    known = VOLUMES[material]
    pairs = itertools.product(zip(elements, fractions, strict=True), repeat=2)
    return float(sum(x * y * (known[a, b] if (a, b) in known else known[b, a]) for (a, x), (b, y) in pairs))


def _alloy(material: str, elements: tuple[str, ...], ratio, label: str, seed: int, tier: int) -> Condition:
    number = counts(ratio, 500)
    symbols = tuple(s for s, n in zip(elements, number, strict=True) for _ in range(n))
    density = mass_density(symbols, 1.0 / volume_per_atom(material, elements, [n / 500 for n in number]))
    return Condition(material=material, label=label, symbols=symbols, density=round(density, 3), seed=seed, tier=tier)


def _silicon_like(material: str, element: str, seed: int) -> tuple[Condition, ...]:
    return tuple(
        Condition(material=material, label=f"{density:.1f}", symbols=(element,) * 216, density=density, seed=seed + 100 * index)
        for index, density in enumerate(DENSITIES)
    )


def _silica() -> tuple[Condition, ...]:
    symbols = ("Si",) * 100 + ("O",) * 200
    return tuple(
        Condition(material="silica", label=f"{rate}Kps", symbols=symbols, density=2.2, seed=30000 + 100 * index, rate=float(rate), tier=tier)
        for index, (rate, tier) in enumerate(((100, 0), (10, 2), (1, 5)))
    )


def ratios() -> list[tuple[int, int, int]]:
    """The 25 ratios Zr:Ni:Al: the equiatomic one, the nine that span the triangle (one element at 3, 2 or 1 beside two equal ones), the rest."""
    first = [(1, 1, 1), (3, 1, 1), (1, 3, 1), (1, 1, 3), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 1)]
    return first + [r for r in itertools.product((1, 2, 3), repeat=3) if math.gcd(*r) == 1 and r not in first]


def _all() -> dict[str, tuple[Condition, ...]]:
    binary = [_alloy("cu-zr", ("Cu", "Zr"), (x, 100 - x), f"Cu{x}Zr{100 - x}", 40000 + 10 * x, 1) for x in range(20, 90, 10)]
    ternary = [
        _alloy("zr-ni-al", ("Zr", "Ni", "Al"), ratio, "Zr{}Ni{}Al{}".format(*ratio), 50000 + 100 * i, 3 if i < SPANNING else 4)
        for i, ratio in enumerate(ratios())
    ]
    return {
        "silicon": _silicon_like("silicon", "Si", 10000),
        "carbon": _silicon_like("carbon", "C", 20000),
        "silica": _silica(),
        "cu-zr": tuple(binary),
        "zr-ni-al": tuple(ternary),
    }


MATERIALS = _all()
TRAINED_AT = {"silicon": "2.5", "carbon": "2.5", "silica": "100Kps", "cu-zr": "Cu50Zr50", "zr-ni-al": "Zr1Ni1Al1"}
TRAINING = {
    name: dataclasses.replace(next(c for c in MATERIALS[name] if c.label == label), label="training", seed=60000 + 100 * i)
    for i, (name, label) in enumerate(TRAINED_AT.items())
}
# frames of every training cell: with one, and still with six, a prior learns their thermal displacements by heart (benchmarks/materials_tried.md)
SNAPSHOTS, MORE = 6, 24
TRAINING_CELLS = {"silicon": 8, "carbon": 16, "silica": 8, "cu-zr": 8, "zr-ni-al": 8}


def conditions(only=None) -> list[Condition]:
    """The conditions of the materials in ``only`` (all by default); ``ValueError`` for a material that does not exist."""
    wrong = [name for name in only or () if name not in MATERIALS]
    if wrong:
        raise ValueError(f"got materials {', '.join(wrong)}; needs some of {', '.join(MATERIALS)}; correct the names")
    return [c for name, group in MATERIALS.items() if only is None or name in only for c in group]


def cells(only=None) -> list[tuple[Condition, int]]:
    """(condition, replica) in the order in which they are made.

    Every condition gets its first ``FEWEST`` replicas before any gets more; within that lower tiers come first (the slowest silica last), and within
    a tier replica 0 of every condition comes before replica 1. The training cells come before all.
    """
    names = [name for name in MATERIALS if only is None or name in only]
    training = sorted(((TRAINING[name], i) for name in names for i in range(TRAINING_CELLS[name])), key=lambda pair: pair[1])
    pairs = [(condition, replica) for condition in conditions(only) for replica in range(REPLICAS)]
    return training + sorted(pairs, key=lambda pair: (pair[1] >= FEWEST, pair[0].tier, pair[1]))


def complete(condition: Condition, path: Path) -> bool:
    """Whether a cell is there, with all of its frames."""
    import ase.io

    return path.exists() and len(ase.io.read(path, ":")) == condition.frames


def make(condition: Condition, replica: int, state: Path) -> float | None:
    """Make one cell and keep it in ``state``; CPU seconds it took, or None where it is there already or another process is making it.

    Of a cell to train on, frames that are missing are added; the seconds are those of before too."""
    import ase.io

    out = condition.path(state, replica)
    if complete(condition, out):
        return None
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if complete(condition, out):
            return None
        started = time.process_time()
        raw = out.with_suffix(".new.extxyz")
        first = SNAPSHOTS if condition.label == "training" else 1
        frames = ase.io.read(out, ":") if out.exists() else []
        if len(frames) < first:
            protocol = dataclasses.replace(published(condition.rate), snapshots=first)
            melt_quench(list(condition.symbols), condition.density, out=raw, seed=condition.seed + replica, protocol=protocol)
            frames = ase.io.read(raw, ":")
        frames, before = frames[:first], max(0.0, frames[0].info.get("seconds", 0.0))
        if condition.frames > first:
            frames += thermal_frames(frames[-1], frames=condition.frames - first, seed=condition.seed + replica)
        seconds = before + time.process_time() - started
        facts = dict(material=condition.material, condition=condition.label, replica=replica, rate_K_ps=condition.rate, seconds=round(seconds, 1))
        for frame in frames:
            frame.info.update(facts)
        part = out.with_suffix(".part")
        ase.io.write(part, frames, format="extxyz")
        part.replace(out)
        raw.unlink(missing_ok=True)
        return seconds


def finished(state: Path, condition: Condition) -> list:
    """The finished frames of one condition, by replica; each is an ``ase.Atoms``. ``ValueError`` for one made when the table was another."""
    import ase.io

    found = []
    for replica in range(max(REPLICAS, *TRAINING_CELLS.values())):
        path = condition.path(state, replica)
        for frame in ase.io.read(path, ":") if path.exists() else ():
            got = (frame.info["seed"], round(frame.info["density_g_cm3"], 6), tuple(frame.get_chemical_symbols()))
            if got != (condition.seed + replica, round(condition.density, 6), condition.symbols):
                raise ValueError(
                    f"got a cell of seed {got[0]}, {got[1]} g/cm3 and {len(frame)} atoms in {path}; needs seed {condition.seed + replica}, "
                    f"{condition.density} g/cm3 and {len(condition.symbols)} atoms; remove it there and in benchmarks/data, or pass another --state"
                )
            frame.info.update(material=condition.material, condition=condition.label, replica=replica, rate_K_ps=condition.rate)
            found.append(frame)
    return found
