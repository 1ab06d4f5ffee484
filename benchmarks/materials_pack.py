"""The committed form of structures: gzipped extended XYZ files, positions to 0.001 A; of the reference ensembles one per material.

Everything that is finished is committed, so that a new machine goes on from there (`unpack`); a condition counts from ``FEWEST`` replicas on.
"""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import materials_reference as reference
import numpy as np
from materials_reference import DATA, FEWEST, Condition


def data_file(material: str, folder: Path = DATA) -> Path:
    """Path of the packed cells of one material."""
    return folder / f"reference_{material}.extxyz.gz"


def training_file(material: str, folder: Path = DATA) -> Path:
    """Path of the packed cells that the prior of one material is trained on."""
    return folder / f"training_{material}.extxyz.gz"


def incomplete(state: Path, only=None) -> list[tuple[Condition, int]]:
    """Conditions with fewer than ``FEWEST`` finished replicas, and how many they have."""
    counted = [(c, sum(c.path(state, i).exists() for i in range(reference.REPLICAS))) for c in reference.conditions(only)]
    return [(condition, number) for condition, number in counted if number < FEWEST]


def _facts(frame) -> dict:
    """What is kept of a reference cell beside its atoms."""
    info = frame.info
    return {
        "material": info["material"],
        "condition": info["condition"],
        "formula": frame.get_chemical_formula(),
        "density_g_cm3": f"{info['density_g_cm3']:g}",
        "rate_K_ps": f"{info['rate_K_ps']:g}",
        "replica": info["replica"],
        "seed": info["seed"],
        "energy_per_atom": f"{info['energy_per_atom']:.6f}",
        "seconds": f"{info['seconds']:.0f}" if "seconds" in info else -1,
        "potential": f'"{info["potential"]}"',
    }


def _text(frame, pairs: dict) -> str:
    """One frame of a cubic cell as extended XYZ, readable by ``ase.io.read``."""
    side = frame.cell.lengths()[0]
    shown = np.round(frame.positions % side, 3)
    shown[shown >= side] = 0.0
    head = f'Lattice="{side:.6f} 0 0 0 {side:.6f} 0 0 0 {side:.6f}" Properties=species:S:1:pos:R:3 pbc="T T T" '
    head += " ".join(f"{key}={value}" for key, value in pairs.items())
    rows = (f"{s} {x:.3f} {y:.3f} {z:.3f}" for s, (x, y, z) in zip(frame.get_chemical_symbols(), shown, strict=True))
    return "\n".join([str(len(frame)), head, *rows, ""])


def write(frames, path: Path, facts=_facts) -> None:
    """Frames as a gzipped file, the same bytes for the same frames, written whole or not at all; ``facts``: frame -> what stands beside its atoms."""
    part = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(part, "wb", compresslevel=9, mtime=0) as handle:
        handle.write("".join(_text(frame, facts(frame)) for frame in frames).encode())
    part.replace(path)


def read(path: Path) -> list:
    """The frames that `write` wrote."""
    import ase.io

    return ase.io.read(io.StringIO(gzip.decompress(path.read_bytes()).decode()), ":", format="extxyz")


def pack(state: Path, only=None, folder: Path = DATA) -> int:
    """Write the packed file of every material from the cells in ``state`` and those that are packed already; print what it holds.

    A condition with fewer than ``FEWEST`` replicas has no spread to compare with: it is named, `load` leaves it out, and the exit status is 1, as it
    is where cells to train on have fewer frames than they need.
    """
    unpack(state, only, folder)
    short, partial = {(c.material, c.label): number for c, number in incomplete(state, only)}, []
    for material in dict.fromkeys(c.material for c in reference.conditions(only)):
        group = reference.conditions([material])
        frames = [frame for condition in group for frame in reference.finished(state, condition)]
        path = data_file(material, folder)
        if frames:
            write(frames, path)
            made = len({frame.info["condition"] for frame in frames})
            print(f"{path.name}: {len(frames)} cells of {made} conditions, {path.stat().st_size / 1024:.0f} KiB")
        if cells := reference.finished(state, reference.TRAINING[material]):
            write(cells, training_file(material, folder))
            print(f"{training_file(material, folder).name}: {len({c.info['replica'] for c in cells})} cells to train on, {len(cells)} frames")
            whole = reference.TRAINING[material].frames
            few = [r for r in dict.fromkeys(c.info["replica"] for c in cells) if sum(c.info["replica"] == r for c in cells) < whole]
            if few:
                partial.append(material)
                print(f"  cells {few} have fewer frames than the {whole} they need; run `python benchmarks/materials.py reference`")
        for condition in group:
            if (material, condition.label) in short:
                found = short[material, condition.label]
                print(
                    f"  does not count: {material} {condition.label}, got {found} replicas; needs {FEWEST}; "
                    "run `python benchmarks/materials.py reference`"
                )
    return 1 if short or partial else 0


def unpack(state: Path, only=None, folder: Path = DATA) -> int:
    """Put the packed cells that are not in ``state`` there, so that a new machine goes on from what is committed; how many there were."""
    import ase.io

    put = 0
    for material in dict.fromkeys(c.material for c in reference.conditions(only)):
        known = {c.label: c for c in (*reference.conditions([material]), reference.TRAINING[material])}
        cells: dict[tuple[str, int], list] = {}
        for path in (data_file(material, folder), training_file(material, folder)):
            for frame in _frames(path) if path.exists() else ():
                cells.setdefault((frame.info["condition"], frame.info["replica"]), []).append(frame)
        for (label, replica), frames in cells.items():
            if label not in known:
                raise ValueError(
                    f"got packed cells of {material} {label}; needs conditions {', '.join(known)}; pack again with the table that they were made for"
                )
            condition = known[label]
            out = condition.path(state, replica)
            frames = frames[: condition.frames]
            if out.exists() and len(ase.io.read(out, ":")) >= len(frames):
                continue  # a cell to train on may be packed with a part of its frames: `make` adds the others
            out.parent.mkdir(parents=True, exist_ok=True)
            part = out.with_suffix(f".{os.getpid()}.part")  # another process may unpack too
            ase.io.write(part, frames, format="extxyz")
            part.replace(out)
            put += 1
    return put


def load(material: str, folder: Path = DATA) -> dict[str, list]:
    """The packed cells of one material: condition -> list of ``ase.Atoms``, in the order of replicas, of conditions with ``FEWEST`` or more.

    Raises ``ValueError`` for an unknown material and ``FileNotFoundError`` where it has not been packed.
    """
    reference.conditions([material])
    path = data_file(material, folder)
    if not path.exists():
        raise FileNotFoundError(
            f"got no file {path}; needs the packed cells of {material}; run `python benchmarks/materials.py reference` and `pack`"
        )
    found: dict[str, list] = {}
    for frame in _frames(path):
        found.setdefault(frame.info["condition"], []).append(frame)
    return {label: frames for label, frames in found.items() if len(frames) >= FEWEST}


def _frames(path: Path) -> list:
    """The frames of a packed file, their labels as text (one such as 2.5 would come back as a number)."""
    frames = read(path)
    for frame in frames:
        label = frame.info["condition"]
        frame.info["condition"] = label if isinstance(label, str) else f"{label:.1f}"
    return frames


def status(state: Path, only=None) -> int:
    """Print per condition how many cells there are and what one cost, and how long the rest will take."""
    unpack(state, only)
    left = 0.0
    for condition in reference.conditions(only):
        frames = reference.finished(state, condition)
        seconds = [f.info["seconds"] for f in frames if "seconds" in f.info]
        cost = float(np.mean(seconds)) if seconds else float("nan")
        energies = [f.info["energy_per_atom"] for f in frames]
        spread = f"{np.mean(energies):8.4f} +- {np.std(energies):.4f} eV" if frames else ""
        print(f"{condition.material:9} {condition.label:10} {condition.density:6.3f} g/cm3 {len(frames):3} cells {cost:6.0f} s each {spread}")
        left += (reference.REPLICAS - len(frames)) * (0.0 if np.isnan(cost) else cost)
    print(f"{left / 3600:.1f} hours of one core left for the conditions whose cost is known")
    return 0
