"""Measured X-ray absorption: XDI, Athena projects, `.xmu`, `.chi` and FEFF's xmu.dat and chi.dat, with the E0, ranges and window they state.

XDI: XAS Data Interchange 1.0 (B. Ravel, M. Newville, J. Phys. Conf. Ser. 712, 012148 (2016)). Column text: Ifeffit and Athena, whose headers
carry the background and Fourier parameters.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..absorption import energy_of, wavenumber, window_name
from .absorption_edge import chi_notes, in_electronvolt, mu_kind
from .absorption_text import ascending, decoded, read_columns
from .athena import choose_record, is_athena, read_athena

__all__ = ["Absorption", "check_range", "read_absorption", "to_chi", "to_normalised"]

_MINIMUM_POINTS = 10
_SLACK = 0.05 * (1 + 1e-6)  # 1/A; chi(k) often begins one grid step above 0


@dataclass(frozen=True)
class Absorption:
    """One X-ray absorption curve as read, with what its file says about it (None where it says nothing).

    kind: "mu" (raw mu(E)), "normalised" (edge step 1 above a pre-edge of 0) or "chi" (chi(k), unweighted). x: [m], photon energy in eV, or k in
    1/A for chi, ascending; y: [m]. e0: edge energy, eV, k = 0. element, edge: such as "Fe", "K". kmin, kmax, dk: 1/A, kweight, window: of the
    forward Fourier transform. rbkg: A, background_kweight: of the background removal. edge_step: of the raw mu. label: sample or group.
    notes: what was done and seen. sha256: of the file's bytes.
    """

    kind: str
    x: np.ndarray
    y: np.ndarray
    e0: float | None = None
    element: str | None = None
    edge: str | None = None
    kmin: float | None = None
    kmax: float | None = None
    kweight: float | None = None
    dk: float | None = None
    window: str | None = None
    rbkg: float | None = None
    background_kweight: float | None = None
    edge_step: float | None = None
    label: str = ""
    notes: tuple[str, ...] = ()
    path: Path = Path()
    sha256: str = ""


def read_absorption(path, *, group: str | None = None, energy_unit: str | None = None, kpower: int | None = None) -> Absorption:
    """Read one absorption curve; its layout is recognised by its content.

    XDI; Athena projects of both generations; columns under a line of labels (`.xmu`, `.chi`, `.nor`, exports of Ifeffit, Athena and larch);
    FEFF's xmu.dat and chi.dat. mu is formed from counts, ln(i0/it) or if/i0, where a file holds no mu.

    Args:
      group: the label (or key) of a group of an Athena project, or the label of the column to take as y; needed where there are several.
        "chi" takes chi(k) from FEFF's xmu.dat, whose mu(E) is taken otherwise.
      energy_unit: "eV" or "keV"; None believes the file and refuses energies that look like keV.
      kpower: the power n of a file of k^n chi(k); None believes the file, and takes 0 where it says nothing.

    Raises FileNotFoundError, or ValueError, naming the file and what to do: no absorption data (a diffraction `.chi`), several groups or columns,
    several scans in one curve, energies in keV, no absorption edge, data that are not what their label says.
    """
    path = Path(path)
    if energy_unit not in (None, "eV", "keV"):
        raise ValueError(f'got energy_unit={energy_unit!r}; needs "eV", "keV" or None; pass one of them')
    raw, text = decoded(path)
    fields, unit = (_from_athena(text, group, path), None) if is_athena(text) else read_columns(text, path, group=group, kpower=kpower)
    x, y, notes = ascending(fields.pop("x"), fields.pop("y"), path)
    notes = (*fields.pop("notes"), *notes)
    kind, said = fields.pop("kind"), fields["e0"]
    if len(x) < _MINIMUM_POINTS:
        raise ValueError(f"{path}: got {len(x)} points; needs at least {_MINIMUM_POINTS}; check that the file is complete")
    if kind == "chi":
        notes += chi_notes(x, y, path)
    elif kind != "computed":
        x, more = in_electronvolt(x, y, unit if energy_unit is None else energy_unit, path)
        kind, seen = mu_kind(x, y, kind, said, path)
        notes += more + seen
    kind = "normalised" if kind == "computed" else kind
    return Absorption(kind=kind, x=x, y=y, notes=notes, path=path, sha256=hashlib.sha256(raw).hexdigest(), **fields)


def check_range(absorption: Absorption, kmin: float, kmax: float) -> None:
    """Raise ValueError where the range kmin to kmax, 1/A, is empty or goes beyond the data (an energy curve needs its e0)."""
    first, last = _k_range(absorption)
    if not 0 <= kmin < kmax:
        raise ValueError(f"got kmin={kmin}, kmax={kmax}; needs 0 <= kmin < kmax; correct them")
    if kmin < first - _SLACK or kmax > last + 1e-6:
        where = absorption.path.name if absorption.path.name else "the curve"
        raise ValueError(f"{where}: got the k-range {kmin:g} to {kmax:g} 1/A; needs one inside the data, {first:.4g} to {last:.4g} 1/A; narrow it")


def to_chi(
    absorption: Absorption,
    *,
    e0: float | None = None,
    kmin: float | None = None,
    kmax: float | None = None,
    kweight: float | None = None,
    dk: float | None = None,
    window: str | None = None,
    rbkg: float | None = None,
    background_kweight: float | None = None,
) -> Absorption:
    """chi(k) with the parameters to transform it by; each argument replaces what the file says.

    chi passes as it is; with another e0 its k is moved, k'^2 = k^2 + (e0 - e0') / 3.80998 eV A^2. mu, raw or normalised, goes through larch's
    autobk with e0, rbkg (1 A where neither says), background_kweight and the edge step of the file; k then runs in steps of 0.05 1/A.
    A kmin or kmax of the file beyond the data is cut to them, with a note.

    Raises ImportError where mu is given and larch is missing; ValueError: a range beyond the data, an unknown window, e0 outside the data.
    """
    given = {"kmin": kmin, "kmax": kmax, "kweight": kweight, "dk": dk, "rbkg": rbkg, "background_kweight": background_kweight}
    given["window"] = None if window is None else window_name(window)
    settings = {name: value for name, value in given.items() if value is not None}
    if absorption.kind == "chi":
        chi = dataclasses.replace(_moved_edge(absorption, e0), **settings)
    else:
        chi = _without_background(dataclasses.replace(absorption, **settings), e0)
    first, last = _k_range(chi)
    low, high = (edge if value is None else value for value, edge in ((chi.kmin, first), (chi.kmax, last)))
    notes = []
    if kmin is None and low < first - _SLACK:
        notes.append(f"kmin of the file, {low:g}, cut to the data, {first:.4g} 1/A")
        low = first
    if kmax is None and high > last:
        notes.append(f"kmax of the file, {high:g}, cut to the data, {last:.4g} 1/A")
        high = last
    check_range(chi, low, high)
    cut = {name: value for name, value in (("kmin", low), ("kmax", high)) if getattr(chi, name) is not None}
    return dataclasses.replace(chi, **cut, notes=(*chi.notes, *notes))


def to_normalised(absorption: Absorption) -> Absorption:
    """Normalised mu(E): as it is, or raw mu through larch's pre_edge with the file's e0.

    Raises ValueError for chi(k), which holds no edge; ImportError where raw mu is given and larch is missing.
    """
    if absorption.kind == "chi":
        raise ValueError(f"{absorption.path.name}: got chi(k); needs mu(E), raw or normalised; read a file that holds the edge")
    if absorption.kind == "normalised":
        return absorption
    pre_edge, _, group = _larch(absorption)
    pre_edge(absorption.x, absorption.y, group=group, e0=absorption.e0)
    note = f"normalised by larch: e0 {group.e0:.2f} eV, edge step {group.edge_step:.5g}"
    step, e0 = float(group.edge_step), float(group.e0)
    return dataclasses.replace(absorption, kind="normalised", y=np.array(group.norm), e0=e0, edge_step=step, notes=(*absorption.notes, note))


def _larch(absorption: Absorption):
    """(pre_edge, autobk, an empty group). Larch silences every warning when it is imported: that is undone."""
    try:
        with warnings.catch_warnings():
            from larch import Group
            from larch.xafs import autobk, pre_edge
    except ImportError as error:
        raise ImportError(
            f"{absorption.path.name}: got {'raw' if absorption.kind == 'mu' else 'normalised'} mu(E); needs xraylarch to normalise it and remove "
            f"its background ({error}); pip install glassjax[xas], or give chi(k)"
        ) from error
    return pre_edge, autobk, Group()


def _without_background(absorption: Absorption, e0: float | None) -> Absorption:
    x, e0 = absorption.x, absorption.e0 if e0 is None else e0
    if e0 is not None and not x[0] <= e0 < x[-1]:
        raise ValueError(f"{absorption.path.name}: got e0={e0:g} eV; needs one inside the data, {x[0]:.1f} to {x[-1]:.1f} eV; correct e0")
    pre_edge, autobk, group = _larch(absorption)
    step = 1.0 if absorption.kind == "normalised" else absorption.edge_step
    if step is None or e0 is None:
        pre_edge(x, absorption.y, group=group, e0=e0, step=step)
        step, e0 = float(group.edge_step), float(group.e0)
    rbkg = 1.0 if absorption.rbkg is None else absorption.rbkg
    power = 1.0 if absorption.background_kweight is None else absorption.background_kweight
    autobk(x, absorption.y, group=group, ek0=e0, edge_step=step, rbkg=rbkg, kweight=power)
    note = f"background removed by larch's autobk: e0 {e0:.2f} eV, edge step {step:.5g}, rbkg {rbkg:g} A, k-weight {power:g}"
    return dataclasses.replace(
        absorption, kind="chi", x=np.array(group.k), y=np.array(group.chi), e0=e0, edge_step=step, rbkg=rbkg, background_kweight=power,
        notes=(*absorption.notes, note),
    )  # fmt: skip


def _moved_edge(absorption: Absorption, e0: float | None) -> Absorption:
    if e0 is None or e0 == absorption.e0:
        return absorption
    if absorption.e0 is None:
        raise ValueError(f"{absorption.path.name}: got e0={e0:g} eV for chi(k) without one; needs the e0 it was made with; leave e0 out")
    energy = energy_of(absorption.x, absorption.e0)
    above = energy >= e0
    if above.sum() < _MINIMUM_POINTS:
        raise ValueError(f"{absorption.path.name}: got e0={e0:g} eV; needs one near {absorption.e0:g} eV; correct e0")
    note = f"e0 moved from {absorption.e0:g} to {e0:g} eV"
    x, y = wavenumber(energy[above], e0), absorption.y[above]
    return dataclasses.replace(absorption, x=x, y=y, e0=e0, notes=(*absorption.notes, note))


def _k_range(absorption: Absorption) -> tuple[float, float]:
    x = absorption.x
    if absorption.kind == "chi":
        return float(x[0]), float(x[-1])
    if absorption.e0 is None:
        raise ValueError(f"{absorption.path.name}: got mu(E) without e0; needs e0 to count k from; convert it with to_chi(..., e0=...)")
    return float(wavenumber(x[0], absorption.e0)), float(wavenumber(x[-1], absorption.e0))


def _from_athena(text: str, group: str | None, path: Path) -> dict:
    records = read_athena(text, path)
    record = choose_record(records, group, path)
    shift, notes = record.number("bkg_eshift"), []
    kind = "computed" if record.flag("is_xmudat") else record.kind
    x = record.x
    if shift and kind != "chi":
        x = x + shift
        notes.append(f"energies moved by the project's alignment, {shift:+g} eV")
    if len(records) > 1:
        notes.append(f"one of {len(records)} groups{'' if record.flag('is_merge') else ', not a merge of several: one scan unless averaged before'}")
    window = record.word("fft_kwindow", "fft_win")
    try:
        window = None if window is None else window_name(window)
    except ValueError:
        notes.append(f"window {window!r} of the project is not known: left open")
        window = None
    element, edge = record.word("bkg_z", "atsym"), record.word("fft_edge", "edge")
    step = record.number("bkg_step", "bkg_fitted_step")
    return dict(
        kind=kind, x=x, y=record.y, notes=tuple(notes), label=record.label, window=window, edge_step=step if step else None,
        e0=record.number("bkg_e0") if record.number("bkg_e0") else None, element=element, edge=None if edge is None else edge.upper(),
        kmin=record.number("fft_kmin"), kmax=record.number("fft_kmax"), kweight=record.number("fft_kw", "fft_kweight"), dk=record.number("fft_dk"),
        rbkg=record.number("bkg_rbkg"), background_kweight=record.number("bkg_kw"),
    )  # fmt: skip
