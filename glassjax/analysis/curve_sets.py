"""All curves of an ensemble that comparisons use, with what a comparison must check: composition, volume, bond cutoffs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from glassjax.analysis.bonds import check_cutoffs
from glassjax.analysis.local import bond_cutoffs
from glassjax.analysis.modalities import MODALITIES, SPECTRAL, edges_with_tables, loaded_surrogates, spectral_observables, structural_curves
from glassjax.analysis.rings import installed, require_matscipy
from glassjax.spectra import compute_spectra
from glassjax.structure import Structure, structure


@dataclasses.dataclass(frozen=True)
class Curves:
    """One feature of an ensemble.

    Attributes:
      x: [points] r (A), Q or k (1/A), angle (degrees), number or size; names of Voronoi indices.
      values: [replicas, points].
    """

    x: np.ndarray
    values: np.ndarray


class CurveSet(dict):
    """{modality: {feature: `Curves`}} of an ensemble, with what a comparison must check.

    Attributes:
      replicas: how many structures.
      counts: {element: atoms} of each structure.
      volume: mean volume, A^3.
      cutoffs: {(element, element): A}, bond cutoffs.
      surrogates: those of "XANES".
    """

    def __init__(self, found, *, replicas: int, counts: dict, volume: float, cutoffs: dict, surrogates: list):
        super().__init__(found)
        self.replicas, self.counts, self.volume, self.cutoffs, self.surrogates = replicas, counts, volume, cutoffs, surrogates


def curves(structures: Sequence[Structure], modalities: Sequence[str] | None = None, *, cutoffs=None, surrogate=None) -> CurveSet:
    """Every curve of every structure, ready to be compared.

    "PDF": total number-weighted g(r) to 8 A, width 0.15 A; "partial PDF" per pair; "XRD" and "ND": I(Q), 1 to 11 1/A, B = 1.5 A^2, pairs to 10 A
    under a cosine window; "EXAFS": k^2 chi(k), 3 to 12 1/A, of every K edge with a shipped table; "XANES" of each surrogate; "ADF" per triplet,
    centre in the middle, width 0.1 rad; "coordination": share of atoms with each number, total and per pair (centre first); "dihedral": total and
    per pair of middle atoms; "q4", "q6": distributions of Steinhardt's q_l, total and per element; "rings": shortest-path rings per atom of 3 to 12
    atoms (to 20 below a mean coordination of 3, as in silica; to 5 above 7);
    "Voronoi": shares of the indices <n3 n4 n5 n6>, total and per element of the centre.

    Args:
      structures: one composition and number of atoms; elements are put in alphabetical order.
      modalities: names from `MODALITIES`; by default all that apply, "rings" only where matscipy is installed.
      cutoffs: A, bond cutoffs, one or per pair of elements; by default `bond_cutoffs`.
      surrogate: for "XANES": a Surrogate, a name or a file, or several.

    Raises:
      ValueError: no structures, structures without atoms or of different composition, an unknown or impossible modality, bad cutoffs.
      ImportError: "rings" without matscipy.
    """
    frames, counts, volume = checked(structures)
    elements = tuple(counts)
    limits = full_cutoffs(bond_cutoffs(elements) if cutoffs is None else cutoffs, elements)
    surrogates = loaded_surrogates(surrogate)
    chosen = _chosen(modalities, elements, surrogates)
    total = sum(counts.values())
    fractions = {e: n / total for e, n in counts.items()}
    observables = spectral_observables(elements, fractions, total / volume, [m for m in chosen if m in SPECTRAL], surrogates)
    spectra = compute_spectra(frames, list(observables.values())) if observables else []
    found: dict[str, dict[str, Curves]] = {modality: {} for modality in chosen}
    for ((modality, feature), one), values in zip(observables.items(), spectra, strict=True):
        found[modality][feature] = Curves(np.asarray(one.x, dtype=float), np.asarray(values, dtype=float))
    for modality in chosen:
        if modality not in SPECTRAL:
            made = structural_curves(frames, elements, limits, modality)
            found[modality] = {feature: Curves(x, values) for feature, (x, values) in made.items()}
    return CurveSet(found, replicas=len(frames), counts=counts, volume=volume, cutoffs=limits, surrogates=surrogates)


def checked(structures):
    """(frames without empty slots and with elements in alphabetical order, {element: atoms}, mean volume); refuses what is no ensemble."""
    if isinstance(structures, Structure) or not len(structures):
        got = "one structure" if isinstance(structures, Structure) else "no structures"
        raise ValueError(f"got {got}; needs a list of at least one; pass the frames of an ensemble")
    frames, counts = [], None
    for index, one in enumerate(structures):
        species = np.asarray(one.species)
        symbols = [one.elements[i] for i in species[species >= 0]]
        positions = np.asarray(one.positions, dtype=float)[species >= 0]
        if not symbols:
            raise ValueError(f"got frame {index} without atoms; needs atoms in every frame; leave the empty frame out")
        if not np.isfinite(positions).all():
            raise ValueError(f"got frame {index} with positions that are NaN or infinite; needs finite positions; leave the frame out")
        own = {e: symbols.count(e) for e in sorted(set(symbols))}
        if counts is not None and own != counts:
            raise ValueError(f"got frame {index} of {formula(own)}, frame 0 of {formula(counts)}; needs one composition; compare them one by one")
        counts = own
        frames.append(structure(positions, np.asarray(one.cell), symbols, tuple(counts)))
    return frames, counts, float(np.mean([abs(np.linalg.det(np.asarray(s.cell, dtype=float))) for s in frames]))


def formula(counts) -> str:
    """Elements with their numbers of atoms, such as Si100 O200."""
    return " ".join(f"{e}{n}" for e, n in counts.items())


def full_cutoffs(cutoffs, elements) -> dict[tuple[str, str], float]:
    """{(a, b): A} of every pair of ``elements``; 0 for pairs that a mapping leaves out."""
    matrix = check_cutoffs(cutoffs, elements)
    return {(a, b): float(matrix[i, j]) for i, a in enumerate(elements) for j, b in enumerate(elements) if j >= i}


def _chosen(modalities, elements, surrogates) -> list[str]:
    if modalities is None:
        skipped = {"partial PDF"} if len(elements) == 1 else set()
        skipped |= set() if edges_with_tables(elements) else {"EXAFS"}
        skipped |= set() if surrogates else {"XANES"}
        skipped |= set() if installed() else {"rings"}
        return [m for m in MODALITIES if m not in skipped]
    chosen = list(dict.fromkeys([modalities] if isinstance(modalities, str) else modalities))
    unknown = [m for m in chosen if m not in MODALITIES]
    if unknown or not chosen:
        raise ValueError(f"got modalities {', '.join(map(str, unknown)) if unknown else 'none'}; needs some of {', '.join(MODALITIES)}")
    if "rings" in chosen:
        require_matscipy()
    if "XANES" in chosen and not surrogates:
        raise ValueError("got XANES without a surrogate; needs one trained for the absorber; pass surrogate, or leave XANES out")
    if "EXAFS" in chosen and not edges_with_tables(elements):
        raise ValueError(f"got EXAFS of {', '.join(elements)}, for which no scattering table ships; needs one; leave EXAFS out")
    return chosen
