"""What guides the ensembles of the benchmark over five materials: curves of the reference, and how replicas depart from them."""

from __future__ import annotations

import materials_check
import numpy as np
from materials_reference import Condition

SURROGATES = {"carbon": "carbon-xanes"}


def structures_of(frames) -> list:
    """glassjax structures of ASE frames."""
    from glassjax.io.atoms import from_atoms

    return [from_atoms(frame) for frame in frames]


def targets(method: str, condition: Condition, structures) -> list:
    """What guides: the mean over the reference replicas of the curve that a measurement would give.

    Reciprocal ones are made of pairs within 10.5 A, as many as a target counts by default. With pairs out to 30 A (in a cell of 16 A its own images)
    a cell of silica met the targets made from itself to R = 0.40 only (0.02 for silicon): they begin at 1 1/A, on the flank of its first peak, and
    what is cut off there cannot be told from pairs nearer than 10 A.
    """
    import glassjax
    from glassjax.analysis.modalities import ANGLES, DISPLACEMENT, REACH, K, Q, R, edges_with_tables
    from glassjax.spectra import compute_spectra
    from glassjax.targets import target

    symbols, density = list(condition.symbols), float(glassjax.number_density(structures[0]))  # their counts are the concentrations
    options = dict(number_density=density, name=method)

    def mean(observable):
        return np.mean([np.asarray(compute_spectra([s], [observable])[0][0]) for s in structures], axis=0)

    if method == "g":
        total = mean(glassjax.pair_distribution(R, symbols, weights="number"))
        return [target(R, total, symbols, function="g", weights="number", **options)]
    if method == "ADF":
        cutoff = materials_check.BONDS[condition.material]
        return [target(ANGLES, mean(glassjax.angle_distribution(ANGLES, symbols, cutoff=cutoff)), symbols, function="ADF", cutoff=cutoff, **options)]
    if method in ("XRD", "ND"):
        kind = dict(function="I", weights="xray" if method == "XRD" else "neutron", displacement=DISPLACEMENT)
        return [target(Q, mean(glassjax.structure_factor(Q, symbols, rmax=REACH + 0.5, window="taper", **kind)), symbols, **kind, **options)]
    if method == "XANES":
        if condition.material not in SURROGATES:
            raise ValueError(f"got XANES of {condition.material}; needs a surrogate, which {', '.join(SURROGATES)} has; leave the method out")
        model = glassjax.load_surrogate(SURROGATES[condition.material])
        observable, edge = glassjax.spectrum(model, elements=structures[0].elements), f"{model.absorber}:{model.edge}"
        about = dict(function="mu(E)", edge=edge, surrogate=model, number_density=density, name="XANES")
        return [glassjax.absorption_target(np.asarray(observable.x), mean(observable), symbols, **about)]
    made = []
    for edge in (f"{element}:K" for element in edges_with_tables(tuple(dict.fromkeys(symbols)))):
        chi = mean(glassjax.exafs(K, symbols, edge=edge, number_density=density, kweight=0))  # the target weighs
        found = dict(function="chi(k)", edge=edge, kmin=float(K[0]), kmax=float(K[-1]), number_density=density, name=f"EXAFS {edge}")
        made.append(glassjax.absorption_target(K, chi, symbols, **found))
    return made


def _own(method: str, condition: Condition, structures) -> list[list[np.ndarray]]:
    """The curves that guide, of each structure by itself."""
    return [[np.asarray(goal.data) for goal in targets(method, condition, [one])] for one in structures]


def fluctuating(method: str, condition: Condition, goals, free, replicas: int, larger: float = 1.0) -> list[list]:
    """The targets of each replica: those given, each moved by ``larger`` times what the curve of one of the ``free`` structures departs from their
    mean."""
    from glassjax._pytree import replace

    curves = _own(method, condition, free)
    used = [curves[index % len(free)] for index in range(replicas)]
    means = [np.mean([one[k] for one in used], axis=0) for k in range(len(goals))]
    return [[replace(goal, data=goal.data + larger * (one[k] - means[k])) for k, goal in enumerate(goals)] for one in used]


def amplitude(method: str, condition: Condition, references, free) -> float:
    """How many times more the curves that guide depart from their mean in the ``references`` than in ``free`` structures of the prior alone, at the
    condition of its training; from 1 to 2. Deviations are over the structures, averaged over the points, the ratio over the targets."""
    from glassjax.analysis.errors import share_seen

    def spread(structures):
        columns = zip(*_own(method, condition, structures), strict=True)
        return np.array([np.std(column, axis=0).mean() for column in columns]) / share_seen(len(structures))

    if min(len(references), len(free)) < 2:
        return 1.0
    return float(np.clip(np.mean(spread(references) / spread(free)), 1.0, 2.0))


def r_factors(goals, structures) -> list[float]:
    """R-factor of each target, the mean over structures."""
    import glassjax
    from glassjax.spectra import compute_spectra

    found = compute_spectra(structures, [goal.observable for goal in goals])
    return [float(np.mean([glassjax.r_factor(goal, goal.model(curve)) for curve in curves])) for goal, curves in zip(goals, found, strict=True)]
