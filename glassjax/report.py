"""What a person sees of an ensemble: structures, fit curves, a picture and a record. Every file is written whole or not at all."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from glassjax import analysis
from glassjax.archive import write_whole
from glassjax.elements import EDITIONS
from glassjax.plots import AXES, plot_fit, png, summary
from glassjax.replica import Ensemble
from glassjax.structure import Structure, number_density
from glassjax.targets import Target, chi_squared, r_factor

PACKAGES = ("jax", "jaxlib", "flax", "optax", "jraph", "jax-md", "ase", "numpy", "scipy")


def curve(observable, structure: Structure) -> np.ndarray:
    """The observable [m] of one structure on the host, with capacities grown until they suffice."""
    margin = 4.0
    while True:
        fitted = observable.fit(structure, margin=margin)
        values = np.asarray(_evaluate(fitted, structure))
        if np.isfinite(values).all() or not np.isfinite(np.asarray(structure.positions)).all() or margin > 1000:
            return values
        margin *= 4


_evaluate = jax.jit(lambda observable, structure: observable(structure))


def fit_curves(ensemble: Ensemble, targets: Sequence[Target]) -> list[np.ndarray]:
    """Model of every good replica per target, [replicas, m] each, with the nuisance parameters inferred for it."""
    good, models = ensemble.good(), []
    for target, values in zip(targets, nuisance_values(ensemble, targets), strict=True):
        curves = [curve(target.observable, ensemble.structures[i]) for i in good]
        shown = [np.asarray(target.model(np.asarray(c), values[i])) for c, i in zip(curves, good, strict=True)]
        models.append(np.stack(shown) if shown else np.zeros((0, len(target.data))))
    return models


def nuisance_values(ensemble: Ensemble, targets: Sequence[Target], trace: str = "nuisance") -> list[np.ndarray]:
    """Nuisance parameters (or, with "nuisance_deviation", their deviations) at the last step, per target [replicas, p]."""
    last, at, parts = ensemble.last(trace), 0, []
    for target in targets:
        start = np.asarray(target.nuisance.start if trace == "nuisance" else target.nuisance.deviation)
        parts.append(np.tile(start, (len(ensemble.structures), 1)) if last is None else last[:, at : at + len(start)])
        at += len(start)
    return parts


def save(ensemble: Ensemble, folder, targets: Sequence[Target] = (), *, record: dict | None = None, cutoff=None) -> Path:
    """Write an ensemble to a folder: ``ensemble.extxyz``, ``fit_<target>.csv``, ``fit.png`` and ``run.json``.

    Args:
      ensemble: from `sample` or `invert`.
      folder: made if it is not there.
      targets: what it was fitted to.
      record: facts for ``run.json``, as `invert` collects them.
      cutoff: bond cutoff of the coordination histogram, A, one or per pair; by default `analysis.bond_cutoffs`.

    Returns:
      The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    targets = tuple(targets)
    models = fit_curves(ensemble, targets)
    info = frame_info(ensemble, targets, record, models)
    if ensemble.good():
        write_whole(folder / "ensemble.extxyz", _extxyz(ensemble.to_atoms(info)))
        numbers = [ensemble.replicas[i] for i in ensemble.good()]
        for target, model in zip(targets, models, strict=True):
            write_whole(folder / f"fit_{target.name}.csv", fit_table(target, model, numbers).encode())
        if targets:
            write_whole(folder / "fit.png", png(plot_fit(targets, models)))
    write_whole(folder / "run.json", json.dumps(_plain(_record(ensemble, targets, models, info, record, cutoff)), indent=1).encode())
    return folder


def frame_info(ensemble: Ensemble, targets: Sequence[Target], record: dict | None = None, models=None) -> list[dict]:
    """Info of each replica's frame, empty for diverged ones: seed, number density (atoms/A^3), R-factor, chi^2 and nuisance parameters per target."""
    models = fit_curves(ensemble, targets) if models is None else models
    info: list[dict] = [{} for _ in ensemble.structures]
    for row, index in enumerate(ensemble.good()):
        info[index] = dict(number_density=float(number_density(ensemble.structures[index])))
        if record and "seed" in record:
            info[index] = dict(seed=record["seed"]) | info[index]
        for target, model in zip(targets, models, strict=True):
            info[index][f"r_factor_{target.name}"] = float(r_factor(target, model[row]))
            info[index][f"chi_squared_{target.name}"] = float(chi_squared(target, model[row]))
        for target, values in zip(targets, nuisance_values(ensemble, targets), strict=True):
            info[index] |= {f"{name}_{target.name}": float(v) for name, v in zip(target.nuisance.names, values[index], strict=True)}
    return info


def fit_table(target: Target, model: np.ndarray, numbers: Sequence[int]) -> str:
    """CSV text: comment lines that state function and unit, then x, data, uncertainty, mean and spread of the model, each replica."""
    mean, spread = summary(model)
    columns = [target.observable.x, target.data, target.uncertainty, mean, spread, *model]
    text = io.StringIO()
    text.write(f"# {target.name}: {AXES[target.observable.function][2]}\n# {target.observable.convention}\n")
    text.write("# model_spread: standard deviation over the replicas\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["x", "data", "uncertainty", "model_mean", "model_spread", *[f"replica_{n}" for n in numbers]])
    for row in np.stack([np.asarray(c, dtype=float) for c in columns], axis=1):
        writer.writerow([f"{v:.7g}" for v in row])
    return text.getvalue()


def versions() -> dict[str, str]:
    """Versions of Python, glassjax and the packages that decide results."""
    from importlib.metadata import PackageNotFoundError, version

    from glassjax import __version__

    found = dict(python=platform.python_version(), glassjax=__version__)
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def peak_memory() -> float | None:
    """Most memory this process has held, MB; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1024**2 if sys.platform == "darwin" else 1024), 1)


def _record(ensemble, targets, models, info, record, cutoff) -> dict:
    """The content of run.json."""
    good, rows = ensemble.good(), []
    limits = analysis.bond_cutoffs(ensemble.elements) if cutoff is None else cutoff
    for index, (number, status) in enumerate(zip(ensemble.replicas, ensemble.status, strict=True)):
        row = dict(replica=number, status=status) | info[index]
        if index in good:
            place = good.index(index)
            for target, model in zip(targets, models, strict=True):
                row[f"mean_abs_difference_{target.name}"] = float(np.abs(model[place] - np.asarray(target.data)).mean())
            share = ensemble.last("share")
            row |= {} if share is None else {f"share_{t.name}": float(v) for t, v in zip(targets, share[index], strict=True)}
            row |= analysis.local_order(ensemble.structures[index], limits)
        rows.append(row)
    bonds = {f"{a}-{b}": value for (a, b), value in limits.items()} if isinstance(limits, dict) else limits
    device = jax.devices()[0]
    return dict(record or {}) | dict(
        conventions={t.name: t.observable.convention for t in targets},
        inferred=_inferred(ensemble, targets),
        tables=dict(EDITIONS),
        bond_cutoffs=bonds,
        versions=versions(),
        device=dict(platform=device.platform, kind=device.device_kind, count=jax.device_count(), cores=os.cpu_count()),
        timings=ensemble.seconds,
        peak_memory_mb=peak_memory(),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        replicas=rows,
    )


def _inferred(ensemble, targets) -> dict:
    """Mean over the good replicas, spread over them, and one replica's own uncertainty of every inferred parameter; densities in atoms/A^3."""
    good, found = ensemble.good(), {}
    if not good:
        return found

    def told(values, errors):
        values, errors = np.asarray(values, dtype=float)[good], None if errors is None else np.asarray(errors, dtype=float)[good]
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        return dict(mean=float(values.mean()), spread=spread, uncertainty=None if errors is None else float(errors.mean()))

    deviations = nuisance_values(ensemble, targets, "nuisance_deviation")
    for target, values, errors in zip(targets, nuisance_values(ensemble, targets), deviations, strict=True):
        for name in target.nuisance.inferred:
            column = target.nuisance.names.index(name)
            found[f"{name} of {target.name}"] = told(values[:, column], errors[:, column])
    if "density_deviation" in ensemble.traces:
        densities = np.array([float(number_density(s)) for s in ensemble.structures])
        errors = ensemble.traces["density_deviation"]
        known = np.flatnonzero(np.isfinite(errors).any(axis=0))
        found["number density"] = told(densities, errors[:, known[-1]] * densities if len(known) else None)
    return found


def _plain(value):
    """JSON-ready: numpy to Python, NaN and infinity to None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _extxyz(frames) -> bytes:
    import ase.io

    text = io.StringIO()
    ase.io.write(text, frames, format="extxyz")
    return text.getvalue().encode()
