"""Densities of the metallic glasses of the benchmark: one constant-pressure melt-quench per composition and a fit of the volume per atom."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import materials_reference as reference
import numpy as np

from glassjax.elements import mass_density, number_density_from_mass
from glassjax.melt_quench import relaxed_density

ATOMS = 250
GUESS = {"Cu": 11.8, "Zr": 23.3, "Ni": 10.9, "Al": 16.6}  # A^3 per atom of the pure metals


def measure(condition: reference.Condition, state: Path) -> tuple[dict[str, float], float]:
    """Fractions by element and volume per atom (A^3) of one composition; kept in ``state``."""
    file = state / "densities" / f"{condition.label}.json"
    elements = list(dict.fromkeys(condition.symbols))
    if not file.exists():
        number = reference.counts([condition.symbols.count(e) for e in elements], ATOMS)
        symbols = [e for e, n in zip(elements, number, strict=True) for _ in range(n)]
        guess = mass_density(symbols, ATOMS / sum(GUESS[s] for s in symbols))
        density = relaxed_density(symbols, guess=guess, seed=condition.seed + 99)
        file.parent.mkdir(parents=True, exist_ok=True)
        volume = 1.0 / number_density_from_mass(symbols, density)
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"fractions": {e: n / ATOMS for e, n in zip(elements, number, strict=True)}, "volume": volume}))
        part.replace(file)
    found = json.loads(file.read_text())
    return found["fractions"], found["volume"]


def fit(measured) -> tuple[dict[tuple[str, str], float], np.ndarray]:
    """V_ab of v = sum_ab x_a x_b V_ab by least squares, and the relative residual of every measurement."""
    elements = list(measured[0][0])
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    design = np.array([[x[a] * x[b] * (1 if a == b else 2) for a, b in pairs] for x, _ in measured])
    volumes = np.array([v for _, v in measured])
    solution = np.linalg.lstsq(design, volumes, rcond=None)[0]
    return dict(zip(pairs, solution.tolist(), strict=True)), design @ solution / volumes - 1.0


def compositions(material: str) -> list[reference.Condition]:
    """The compositions that are measured: all of a binary, of the ternary the ten that span its triangle."""
    return reference.conditions([material])[: reference.SPANNING]


def main(state: Path, only=None) -> int:
    """Measure the `compositions`, fit, and print beside the numbers in use."""
    for material in reference.VOLUMES:
        if only is not None and material not in only:
            continue
        measured = []
        for condition in compositions(material):
            measured.append(measure(condition, state))
            print(f"{material} {condition.label}: {measured[-1][1]:.3f} A^3 per atom, in use {condition.density} g/cm3", flush=True)
        volumes, residual = fit(measured)
        print(f"{material}: residual {100 * np.sqrt(np.mean(residual**2)):.2f} % rms, {100 * np.abs(residual).max():.2f} % at most")
        for pair, volume in volumes.items():
            known = reference.VOLUMES[material]
            print(f"  {'-'.join(pair)}: {volume:.3f} A^3, in use {known.get(pair, known.get(pair[::-1]))}")
    return 0
