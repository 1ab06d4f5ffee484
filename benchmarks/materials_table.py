"""The table of the benchmark: metrics of the ensembles of every material, condition and method (`materials_ensembles`), written after each."""

from __future__ import annotations

import json
from pathlib import Path

import materials_check
import materials_pack
import materials_reference as reference
import numpy as np
from materials_ensembles import RMC, ensemble_file, make, marks_of
from materials_reference import Condition
from materials_targets import SURROGATES, structures_of

VERSION = 4  # of the metrics: rows of others are computed again


def metrics(condition: Condition, generated, references, modalities=None) -> dict:
    """Errors, diversities and dED of every modality, and local order of both; ``references`` may be curves that are known already."""
    from glassjax.analysis.comparison import compare

    surrogate = SURROGATES.get(condition.material)
    return compare(generated, references, modalities, cutoffs=materials_check.BONDS[condition.material], surrogate=surrogate).to_dict()


def conditions_of(material: str, labels=None) -> list[tuple[Condition, list]]:
    """(condition, packed reference cells) of those that are packed."""
    packed = materials_pack.load(material)
    unknown = [label for label in labels or () if label not in packed]
    if unknown:
        raise ValueError(f"got conditions {', '.join(unknown)} of {material}; needs some of {', '.join(packed)}; correct --conditions, or pack them")
    return [(c, packed[c.label]) for c in reference.conditions([material]) if c.label in packed and (labels is None or c.label in labels)]


MODALITIES = ("PDF", "XRD", "ND", "ADF", "partial PDF", "EXAFS", "coordination", "dihedral", "q6")
ELEMENTAL = tuple(m for m in MODALITIES if m != "partial PDF")  # of one element the partial PDF is the PDF


def modalities_of(material: str, every: bool = False) -> list[str] | None:
    """What is compared; None for everything that `glassjax.analysis` knows (rings and Voronoi indices take long)."""
    if every:
        return None
    known = ELEMENTAL if len(set(reference.MATERIALS[material][0].symbols)) == 1 else MODALITIES
    return [*known, "XANES"] if material in SURROGATES else list(known)


def shortest(frames) -> dict[str, float]:
    """Shortest distance of each pair of elements over all frames, A; pairs beyond 4 A are left out."""
    from glassjax.priors.cells import shortest_distances

    return shortest_distances(structures_of(frames))


def local(material: str, frames) -> dict[str, list[float]]:
    """(mean, deviation over the replicas) of the numbers of `materials_check`."""
    rows = [materials_check.MEASURES[material](frame, materials_check.BONDS[material]) for frame in frames]
    return {key: [round(float(np.mean([r[key] for r in rows])), 4), round(float(np.std([r[key] for r in rows])), 4)] for key in rows[0]}


def row(condition: Condition, frames, generated, facts: dict, reference_curves) -> dict:
    """What the result file keeps of one ensemble."""
    made = metrics(condition, structures_of(generated), reference_curves, list(reference_curves))
    apart, known = shortest(generated), shortest(frames)
    numbers = ("error", "diversity", "generated_diversity", "ded", "ded_uncertainty", "diversity_ratio", "ratio_uncertainty")
    rounded = {m: {k: None if v[k] is None else round(v[k], 5) for k in numbers} for m, v in made["modalities"].items()}
    features = {f"{r['modality']} {r['feature']}": round(r["ded"], 5) for r in made["rows"]}
    return dict(
        version=VERSION,
        compared=marks_of(frames),
        replicas=made["replicas"],
        modalities=rounded,
        features=features,
        local=dict(generated=local(condition.material, generated), reference=local(condition.material, frames)),
        shortest=dict(generated=apart, reference=known, margin=round(min(apart.get(p, 4.0) - d for p, d in known.items()), 3)),
        facts={k: v for k, v in facts.items() if k not in ("material", "condition", "method")},
    )


def run(
    materials,
    methods,
    *,
    out: Path,
    results: Path,
    prior_of,
    replicas: int,
    labels=None,
    every: bool = False,
    steps=None,
    fluctuate: bool = True,
    **limits,
) -> int:
    """Make what is missing of the table, and write ``results`` after every ensemble: {material: {method: {condition: `row`}}}.

    Ensembles of which nothing is left are named and passed over; the exit status is then 1.
    """
    from materials_reference import TRAINED_AT

    from glassjax.analysis.comparison import curves
    from glassjax.archive import write_whole

    table, failed = json.loads(results.read_text()) if results.exists() else {}, 0
    for material in materials:
        try:
            group = conditions_of(material, labels)
        except FileNotFoundError as error:
            print(f"{material:9} is passed over: {error}", flush=True)
            failed += 1
            continue
        trained = next((pair for pair in conditions_of(material) if pair[0].label == TRAINED_AT[material]), None)
        # the condition of the training first
        for condition, frames in sorted(group, key=lambda pair: pair[0].label != TRAINED_AT[material]):
            known = None
            for method in methods:
                if method == "XANES" and material not in SURROGATES:
                    continue
                prior = prior_of(material, method)
                done = table.setdefault(material, {})
                common = dict(prior=prior, replicas=replicas, steps=None if method in (*RMC, "gradient") else steps)
                common |= dict(fluctuate=fluctuate, trained=trained)
                try:
                    budget = _budget(condition, done, **limits) if method in RMC else {}
                    facts = make(method, condition, frames, out, **common, **budget)
                except (RuntimeError, ValueError) as error:  # the others are made all the same
                    print(f"{material:9} {method:10} {condition.label:10} failed: {error}", flush=True)
                    done.get(method, {}).pop(condition.label, None)
                    failed += 1
                    continue
                place = done.setdefault(method, {})
                compared = marks_of(frames)
                if _same(place.get(condition.label), facts, compared, modalities_of(material, every)):
                    continue
                if known is None:
                    options = dict(cutoffs=materials_check.BONDS[material], surrogate=SURROGATES.get(material))
                    known = curves(structures_of(frames), modalities_of(material, every), **options)
                generated = materials_pack.read(ensemble_file(out, material, method, condition.label))
                place[condition.label] = row(condition, frames, generated, facts, known)
                write_whole(results, json.dumps(table, indent=1).encode())
                print(line(material, method, condition.label, place[condition.label]), flush=True)
    return 1 if failed else 0


def _budget(condition: Condition, done: dict, seconds: float | None = None, moves: int | None = None) -> dict:
    """Budget of a reverse Monte Carlo: the one given, else the wall-clock time of ten ensembles guided by g(r) for as many structures, which have a
    core each as the replicas of those had: ten times the seconds of a structure times the cores, up to the next half minute."""
    if seconds is not None or moves is not None:
        return dict(seconds=seconds, moves=moves)
    guided = done.get("g", {}).get(condition.label)
    if guided is None:
        raise ValueError(
            f"got no budget and no ensemble of {condition.material} {condition.label} guided by g(r); needs one to take ten times its time; "
            "make the methods prior and g first, or pass --seconds"
        )
    facts = guided["facts"]
    spent = min(facts["cores"], facts["asked"]["replicas"]) * (facts["seconds"] + facts.get("seconds_free", 0.0))
    return dict(seconds=30.0 * max(1, -(-10 * spent // 30)), moves=None, ensembles=10)


def _same(found: dict | None, facts: dict, compared, modalities) -> bool:
    """Whether a row of the result file is of this ensemble and reference, by these metrics, with all of these modalities."""
    if found is None or found["facts"]["asked"] != facts["asked"] or found.get("version") != VERSION or found.get("compared") != compared:
        return False
    return set(modalities or ("rings", "Voronoi")) <= set(found["modalities"])


def line(material: str, method: str, label: str, found: dict) -> str:
    """One line of text for one ensemble."""
    cells = " ".join(f"{name} {one['ded']:+.4f}" for name, one in found["modalities"].items())
    spent = found["facts"]["seconds"]
    return f"{material:9} {method:10} {label:10} {cells}  shortest {found['shortest']['margin']:+.2f} A  {spent:.1f} s"
