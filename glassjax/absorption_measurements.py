"""From an X-ray absorption file to a target: what the file says of E0, ranges and window is applied to data and model alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glassjax.absorption_targets import ABSORPTION, absorption_target
from glassjax.io.absorption import check_range, read_absorption, to_chi, to_normalised
from glassjax.observables.exafs import parse_edge
from glassjax.settings import TargetSettings, refuse_others
from glassjax.targets import Target

SHARED = ("edge", "s02", "e0_shift", "group", "energy_unit", "surrogate")
EXAFS = (*SHARED, "e0", "kmin", "kmax", "kweight", "dk", "window", "rbkg", "scattering", "mean_square", "rmax", "kpower")
BELONG = {"chi(k)": (*EXAFS, "multiple"), "chi(R)": (*EXAFS, "rmin"), "mu(E)": (*SHARED, "xmin", "xmax")}


def is_absorption(one: TargetSettings) -> bool:
    """Whether the settings ask for an absorption target: by function, or by an edge."""
    return one.function in ABSORPTION or (one.function is None and one.edge is not None)


def read_absorption_target(one: TargetSettings, *, symbols: Sequence[str], number_density: float) -> tuple[Target, dict]:
    """A target from an absorption file, and the facts about it for the record.

    E0, kmin, kmax, k-weight, dk, window and rbkg are the settings', else the file's, else 3 to 14 1/A (or the data's end), 2, 1 1/A, "hanning", 1 A.
    "chi(k)" and "chi(R)" take chi(k) as it is and mu(E) through larch's autobk; "mu(E)" takes normalised mu(E), or raw through larch's pre_edge.

    Raises:
      FileNotFoundError, ValueError: see `read_absorption`, `to_chi` and `absorption_target`; a file of another element or edge than asked for.
      ImportError: raw mu(E) without larch.
    """
    function = "chi(k)" if one.function is None else one.function
    refuse_others(one, BELONG[function], function)
    elements = tuple(dict.fromkeys(symbols))
    found = read_absorption(one.file, group=one.group, energy_unit=one.energy_unit, kpower=one.kpower)
    edge = _edge(one, found, elements)
    made: dict = dict(surrogate=one.surrogate)
    if function == "mu(E)":
        used = to_normalised(found)
        made |= dict(xmin=one.xmin, xmax=one.xmax)
    else:
        options = {n: getattr(one, n) for n in ("e0", "kmin", "kmax", "kweight", "dk", "window", "rbkg") if getattr(one, n) is not None}
        used = to_chi(found, **options)
        made |= {n: getattr(used, n) for n in ("kmin", "kmax", "kweight", "dk", "window") if getattr(used, n) is not None}
        made |= {n: getattr(one, n) for n in ("rmin", "rmax") if getattr(one, n) is not None}
        made |= dict(multiple=one.multiple, table=one.scattering, mean_square=one.mean_square)
        if "kmin" in made and "kmax" in made:
            check_range(used, made["kmin"], made["kmax"])
    uncertainty = one.uncertainty
    if isinstance(uncertainty, str):
        raise ValueError(f"{one.file}: got uncertainty = {uncertainty!r} with {function}; needs a number, of what is fitted; pass one or none")
    mask = [tuple(interval) for interval in one.mask] if one.mask else []
    common = dict(uncertainty=uncertainty, weight=one.weight, s02=one.s02, e0_shift=one.e0_shift, background=one.background, mask=mask, name=one.name)
    x, y = (used.x, used.y) if function == "mu(E)" else (used.x[used.x > 0], used.y[used.x > 0])
    result = absorption_target(x, y, symbols, function=function, number_density=number_density, edge=edge, **common, **made)
    record = dict(name=result.name, file=str(one.file), sha256=found.sha256, function=function, edge=edge, e0=used.e0 if one.e0 is None else one.e0)
    record |= dict(weight=one.weight, uncertainty="default" if uncertainty is None else "one number given", points_in_file=len(found.x))
    record |= dict(points_used=len(result.data), independent_points=result.independent, options={n: v for n, v in made.items() if v is not None})
    record |= dict(mask=[list(m) for m in mask], notes=list(used.notes), s02=one.s02, e0_shift=one.e0_shift, inferred=result.nuisance.inferred)
    return result, record | dict(starts=dict(zip(result.nuisance.names, np.asarray(result.nuisance.start).tolist(), strict=True)))


def _edge(one: TargetSettings, found, elements) -> str:
    """Absorber and edge of the settings, or of the file; contradictions are refused."""
    said = f"{found.element}:{found.edge}" if found.element and found.edge else None
    if one.edge is None and said is None:
        raise ValueError(f"{one.file}: got a file that does not name its element and edge; needs both; pass edge, such as 'Si:K'")
    absorber, level = parse_edge(said if one.edge is None else one.edge, elements)
    if said is not None and said != f"{absorber}:{level}":
        raise ValueError(f"{one.file}: got edge {absorber}:{level}, but the file says {said}; pass edge={said!r} or correct the header")
    return f"{absorber}:{level}"
