"""Pictures: fits, spectra and learning curves, with matplotlib loaded when one is drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from glassjax.targets import Target, r_factor

Q, R = "Q (Å⁻¹)", "r (Å)"
AXES = {
    "g": (R, "g(r)", "r in A, g(r) dimensionless"),
    "G": (R, "G(r) (Å⁻²)", "r in A, G(r) in 1/A^2"),
    "G_keen": (R, "G(r), Keen", "r in A, Keen's G(r) in barn (neutrons) or units of the weights"),
    "D": (R, "D(r)", "r in A, D(r) in 1/A^2 times the unit of <b>^2"),
    "T": (R, "T(r)", "r in A, T(r) in 1/A^2 times the unit of <b>^2"),
    "RDF": (R, "RDF(r) (Å⁻¹)", "r in A, RDF(r) in 1/A"),
    "S": (Q, "S(Q)", "Q in 1/A, S(Q) dimensionless"),
    "F_keen": (Q, "F(Q), Keen", "Q in 1/A, Keen's F(Q) in barn/sr/atom (neutrons) or electrons^2 (X-rays)"),
    "Q(S-1)": (Q, "Q (S − 1) (Å⁻¹)", "Q in 1/A, Q (S - 1) in 1/A"),
    "I": (Q, "I(Q) per atom", "Q in 1/A, intensity per atom in barn/sr (neutrons) or electrons^2 (X-rays)"),
    "S_AL": (Q, "S(Q), Ashcroft-Langreth", "Q in 1/A, dimensionless"),
    "S_NN": (Q, "S_NN(Q)", "Q in 1/A, dimensionless"),
    "S_NC": (Q, "S_NC(Q)", "Q in 1/A, dimensionless"),
    "S_CC": (Q, "S_CC(Q)", "Q in 1/A, dimensionless"),
    "ADF": ("angle (°)", "ADF (rad⁻¹)", "angle in degrees, density per radian"),
    "chi(k)": ("k (Å⁻¹)", "kʷ χ(k)", "k in 1/A, k^w chi(k) in 1/A^w, w in the next line"),
    "chi(R)": ("R (Å)", "Re, Im χ(R)", "R in A, not corrected for phase; real parts of chi(R), then imaginary parts, in 1/A^(w + 1)"),
    "mu(E)": ("energy", "μ(E), normalised", "energy in the unit of the surrogate, absorption normalised to its edge step"),
    "coordination": ("pair", "coordination number", "index of the pair, mean number of neighbours"),
    "coordination distribution": ("neighbours", "share of atoms", "number of neighbours, density"),
}
DATA, MODEL = "#222222", "#c1440e"


def summary(model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over replicas (zero for one)."""
    return model.mean(axis=0), model.std(axis=0, ddof=1) if len(model) > 1 else np.zeros(model.shape[1])


def plot_fit(targets: Sequence[Target], models: Sequence[np.ndarray]):
    """A matplotlib figure: data and mean model with the band of the replicas above, the residual below; a column per target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * max(1, len(targets)), 4.8), layout="constrained")
    axes = figure.subplots(2, max(1, len(targets)), squeeze=False, height_ratios=(3, 1), sharex="col")
    for column, (target, model) in enumerate(zip(targets, models, strict=True)):
        _plot_target(axes[0, column], axes[1, column], target, model)
    return figure


def _plot_target(above, below, target, model):
    x, data, uncertainty = (np.asarray(a, dtype=float) for a in (target.observable.x, target.data, target.uncertainty))
    label_x, label_y, _ = AXES[target.observable.function]
    mean, spread = summary(model)
    breaks = np.flatnonzero(np.diff(x) < 0) + 1  # chi(R): real parts, then imaginary parts over the same R
    x, data, uncertainty, mean, spread = (np.insert(a, breaks, np.nan) for a in (x, data, uncertainty, mean, spread))
    above.plot(x, data, "o", ms=3.5, mfc="none", mew=0.8, color=DATA, label="data")
    above.plot(x, mean, color=MODEL, lw=1.6, label=f"model, mean of {len(model)}" if len(model) > 1 else "model")
    if len(model) > 1:
        above.fill_between(x, mean - spread, mean + spread, color=MODEL, alpha=0.25, lw=0, label="spread of replicas (±1 s.d.)")
    ratio = float(r_factor(target, summary(model)[0]))
    above.set_ylabel(label_y)
    above.set_title(f"{target.name}: R = {ratio:.3f}", loc="left", fontsize=10)
    above.legend(frameon=False, fontsize=9)
    below.fill_between(x, -uncertainty, uncertainty, color="#888888", alpha=0.25, lw=0, label="± uncertainty")
    below.plot(x, data - mean, color=MODEL, lw=1.2)
    below.axhline(0.0, color=DATA, lw=0.6)
    below.set_xlabel(label_x)
    below.set_ylabel("data − model")
    below.legend(frameon=False, fontsize=8)
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)


def plot_learning_curve(path):
    """A matplotlib figure of a training's CSV: loss against steps per band of noise."""
    from matplotlib.figure import Figure

    with open(path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axis = figure.subplots()
    for name in [n for n in (rows[0] if rows else ()) if n.startswith("loss_")]:
        _, low, high = name.split("_")
        points = [(int(r["step"]), float(r[name])) for r in rows if r[name]]
        if points:
            label = f"σ > {low} Å" if float(high) >= 10 else f"σ {low}–{high} Å"
            axis.plot(*zip(*points, strict=True), lw=1.2, label=label)
    axis.set_xlabel("step")
    axis.set_ylabel("denoising loss per atom (3 = no knowledge)")
    axis.set_yscale("log")
    axis.spines[["top", "right"]].set_visible(False)
    if axis.lines:
        axis.legend(frameon=False, fontsize=9)
    return figure


def plot_spectra(panels):
    """A matplotlib figure of computed curves: a panel for each (label, function, x, curves [frames, m]); frames thin, their mean thick."""
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.0 if columns == 1 else 4.2 * columns, 4.0 if rows == 1 else 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis, (label, function, x, curves) in zip(axes, panels, strict=False):
        for one in curves[:50] if len(curves) > 1 else ():
            axis.plot(x, one, color="#888888", lw=0.5, alpha=0.6)
        axis.plot(x, curves.mean(axis=0), color=MODEL, lw=1.8, label=f"mean of {len(curves)}" if len(curves) > 1 else None)
        axis.set_xlabel(AXES[function][0])
        axis.set_ylabel(AXES[function][1])
        axis.set_title(label, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axis.legend(frameon=False, fontsize=9)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return figure


def png(figure) -> bytes:
    """A matplotlib figure as PNG bytes (no display, no global state)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
