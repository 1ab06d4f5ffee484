"""From a measured file to a target: what it holds, in which units, how far it reaches, what is wrong with it."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glassjax import artefacts
from glassjax.absorption_measurements import is_absorption, read_absorption_target
from glassjax.elements import check_density, parse_composition
from glassjax.io.identify import identify
from glassjax.io.measured import check_function, read_measured
from glassjax.observables.pair import REAL_SPACE, RECIPROCAL
from glassjax.observables.weights import fractions_of, mean_square
from glassjax.settings import RunSettings, TargetSettings, refuse_others
from glassjax.targets import FUNCTIONS, Target, target

FEWEST = 16  # points, to tell artefacts from shape
GENERAL = ("weights", "artefacts", "scale", "axis", "wavelength", "edges", "columns", "repeated")  # options of all functions but absorption
# options that belong to one kind of function alone
OWN = {
    "real": ("rmin", "rmax", "qmin", "qmax", "width", "termination", "qdamp", "qbroad", "partial", "isotopes"),
    "reciprocal": ("qmin", "qmax", "rmax", "window", "qdamp", "displacement", "partial", "isotopes"),
    "local": ("xmin", "xmax", "width", "cutoff", "switch", "triplet", "partial"),
}
RANGES = {"real": ("rmin", "rmax"), "reciprocal": ("qmin", "qmax"), "local": ("xmin", "xmax")}


def read_target(file, *, symbols: Sequence[str], number_density: float, **options) -> tuple[Target, dict]:
    """A target from a text file of columns, and the facts about it for the record.

    Args:
      file: path, in any layout that `read_measured` knows.
      symbols: composition, one symbol per atom.
      number_density: atoms per A^3.
      **options: keys of `TargetSettings`. Without ``function`` the file is identified; Qmax, Qdamp, Qbroad and the
        radiation are taken from its header where it has them.

    Raises:
      FileNotFoundError, ValueError: see `read_measured`, `identify`, `check_function` and `target`; options that are unknown or do not belong to the
        function.
    """
    one = _settings(file, options)
    if is_absorption(one):
        return read_absorption_target(one, symbols=symbols, number_density=number_density)
    columns = None if one.columns is None else tuple(one.columns)
    measured = read_measured(file, columns=columns, repeated=one.repeated)
    measured, notes = _centred(_in_q(measured, one), one.edges)
    function = one.function
    if function is None:
        found = identify(file, composition=dict(fractions_of(symbols)), number_density=number_density, columns=columns)
        function = found.function
        if function is None:
            raise ValueError(f"{file}: got a curve that header and limits leave open; needs --function; {'; '.join([*found.notes, *found.advice])}")
        notes.append(f"identified as {function}")
    if function not in FUNCTIONS:
        raise ValueError(f"{file}: got function {function!r}; needs one of {', '.join(FUNCTIONS)}; pass --function")
    kind = "real" if function in REAL_SPACE else "reciprocal" if function in RECIPROCAL else "local"
    refuse_others(one, (*OWN[kind], *GENERAL), function)
    weights = _weights(one, measured, function, symbols, file)
    given = {name: getattr(one, name) for name in OWN[kind] if getattr(one, name) is not None}
    made = {name: value for name, value in given.items() if name not in RANGES[kind]}
    low, high = (given.get(name) for name in RANGES[kind])
    if kind == "real":
        made |= _instrument(one, measured.facts, function, notes)
    square = None
    if kind != "local":
        if weights in ("neutron", "Z") and function in ("G_keen", "D", "T", "F_keen"):
            square = float(mean_square(fractions_of(symbols), weights, isotopes=one.isotopes))
        check_function(measured, function, number_density, mean_square=square)
    if "partial" in made:
        made["partial"] = _names(made["partial"], 2, "partial")
    if isinstance(made.get("cutoff"), Mapping):
        made["cutoff"] = {_names(key, 2, "cutoff"): value for key, value in made["cutoff"].items()}
    mask = [tuple(interval) for interval in one.mask] if one.mask else []
    found = _find_artefacts(measured, function, number_density, square)
    if one.artefacts not in ("report", "mask"):
        raise ValueError(f"got artefacts = {one.artefacts!r}; needs 'report' or 'mask'; correct it")
    if one.artefacts == "mask":
        around = 0.25 * float(np.min(np.diff(measured.x)))  # a spike may be a single point
        mask += [(max(0.0, a.low - around), a.high + around) for a in found]
    uncertainty, source = _uncertainty(one, measured, kind)
    result = target(
        measured.x,
        measured.y,
        symbols,
        function=function,
        number_density=number_density,
        weights=weights,
        uncertainty=uncertainty,
        weight=one.weight,
        xmin=low,
        xmax=high,
        mask=mask,
        scale=one.scale,
        background=one.background,
        name=one.name,
        **made,
    )
    record = dict(name=result.name, file=str(file), sha256=measured.sha256, function=function, weights=weights, uncertainty=source, weight=one.weight)
    record |= dict(points_in_file=len(measured.x), points_used=len(result.data), independent_points=result.independent, range=[low, high])
    record |= dict(options=made, mask=[list(m) for m in mask], artefacts=[a.text for a in found], notes=notes)
    return result, record | dict(scale=one.scale, background=one.background, inferred=result.nuisance.inferred)


def _settings(file, options) -> TargetSettings:
    known = [f.name for f in dataclasses.fields(TargetSettings)]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ValueError(f"got unknown option {key!r}; needs some of {', '.join(known)}; {f'did you mean {near[0]}?' if near else 'remove it'}")
    return TargetSettings(**({k: v for k, v in options.items() if k != "file"} | {"file": str(file)}))


def _in_q(measured, one):
    """The data with 2theta turned into Q, and refused where neither the file nor the options say which of the two the first column is."""
    facts = measured.facts
    axis = facts.axis if one.axis is None else one.axis
    if one.axis not in (None, "Q", "2theta"):
        raise ValueError(f"got axis = {one.axis!r}; needs 'Q' or '2theta'; correct it")
    if one.axis is not None and facts.axis not in (None, one.axis):
        raise ValueError(
            f"{measured.path}: got axis = {one.axis!r}, but the header calls the first column {facts.axis}; leave it out or correct the header"
        )
    if axis is None and facts.layout == "xye":
        raise ValueError(
            f"{measured.path}: got an .xye file that does not say whether its first column is Q or 2theta; pass axis='Q' or axis='2theta'"
        )
    if axis != "2theta":
        return measured
    wavelength = facts.wavelength if one.wavelength is None else one.wavelength
    if wavelength is None:
        raise ValueError(f"{measured.path}: got 2theta without a wavelength; needs one to make Q of it; pass wavelength, A")
    if not wavelength > 0 or measured.x[-1] > 180:
        raise ValueError(
            f"{measured.path}: got wavelength {wavelength} A and 2theta up to {measured.x[-1]:g}; needs a positive one and at most 180 degrees"
        )
    q = 4 * np.pi / wavelength * np.sin(np.radians(measured.x) / 2)
    note = f"2theta turned into Q with the wavelength {wavelength:g} A"
    return dataclasses.replace(measured, x=q, facts=dataclasses.replace(facts, axis="Q", unit="1/A"), notes=(*measured.notes, note))


def _centred(measured, edges):
    """The data with left bin edges moved to the centres of the bins, if ``edges`` says so; and the notes of the file."""
    notes = list(measured.notes)
    if edges not in ("centre", "left"):
        raise ValueError(f"got edges = {edges!r}; needs 'centre' or 'left'; correct it")
    if edges == "centre":
        return measured, notes
    if measured.facts.left_edges:
        raise ValueError(f"{measured.path}: got edges = 'left' for a {measured.facts.layout} file, whose bins are centred already; leave it out")
    step = np.diff(measured.x)
    return dataclasses.replace(measured, x=measured.x + 0.5 * np.append(step, step[-1])), [*notes, "half a bin added: left bin edges became centres"]


def _weights(one, measured, function, symbols, file):
    """The weights asked for, those of the radiation that the header names, or None; contradictions are refused."""
    said = measured.facts.radiation
    if one.weights in ("neutron", "xray") and said not in (None, one.weights):
        raise ValueError(
            f"{file}: got weights {one.weights!r}, but the header says {measured.facts.radiation}; pass weights={said!r} or correct the header"
        )
    if one.weights is not None or said is None or function not in (*REAL_SPACE, *RECIPROCAL) or one.partial is not None:
        return one.weights
    if len(set(symbols)) == 1 and function not in ("G_keen", "D", "T", "F_keen", "I"):
        return None
    return said


def _instrument(one, facts, function, notes) -> dict:
    """Qmax, Qdamp and Qbroad: what was asked for, else what the header says."""
    made = {}
    for name in ("qmin", "qmax", "qdamp", "qbroad"):
        asked, said = getattr(one, name), getattr(facts, name)
        if name == "qdamp" and said is not None and (asked == "infer" or (isinstance(asked, Mapping) and "start" not in asked)):
            made[name] = {"start": said} | ({} if asked == "infer" else dict(asked))
            notes.append(f"qdamp starts from {said:g} 1/A, of the header")
        elif asked is not None:
            made[name] = asked
        elif said is not None and not (name == "qdamp" and function in ("T", "RDF")):
            made[name] = said
            notes.append(f"{name} = {said:g} 1/A from the header")
    return made


def _find_artefacts(measured, function, number_density, square):
    if function not in (*REAL_SPACE, *RECIPROCAL) or (function in ("G_keen", "D", "T") and square is None):
        return []
    if len(measured.x) < FEWEST:
        return []
    return artefacts.find_artefacts(measured.x, measured.y, function, number_density=number_density, mean_square=square)


def _uncertainty(one, measured, kind):
    """Uncertainties for `target`, and where they come from."""
    if isinstance(one.uncertainty, str):
        if one.uncertainty != "noise":
            raise ValueError(f"got uncertainty = {one.uncertainty!r}; needs a number, or 'noise' to estimate it from the data; correct it")
        if kind == "real":
            raise ValueError(
                f"{measured.path}: got uncertainty = 'noise' for a function of r; the noise of a transform is alike in neighbouring points and "
                "cannot be told from them; pass a number, or guide on the function of Q it was made from"
            )
        noise = artefacts.estimate_noise(measured.x, measured.y)
        if not float(np.max(noise)) > 0:
            raise ValueError(f"{measured.path}: got data without noise; needs a number as uncertainty; pass one")
        return noise, f"estimated from the data: {float(np.mean(noise)):.3g}"
    if one.uncertainty is not None:
        return one.uncertainty, "one number given"
    return measured.uncertainty, "the file's column" if measured.uncertainty is not None else "default"


def _names(value, count, what):
    names = tuple(value.split("-")) if isinstance(value, str) else tuple(value)
    if len(names) != count:
        raise ValueError(f"got {what} {value!r}; needs {count} elements, such as Si-O")
    return names


def read_targets(run: RunSettings) -> tuple[list[Target], dict]:
    """Every target of a run, with file hashes for the record; also checks composition and density.

    Raises:
      ValueError: see `read_target`; no target.
    """
    if run.composition is None and run.init is not None:
        from glassjax.io.atoms import read_structures
        from glassjax.structure import number_density as density_of

        first = read_structures(run.init)[0]
        symbols, rho = first.symbols, float(density_of(first))
        if run.density is not None or run.number_density is not None:
            rho = check_density(symbols, run.number_density, mass_density=run.density)
    else:
        if run.composition is None or run.atoms is None:
            raise ValueError("got no composition or no number of atoms; needs both; pass --composition and --atoms")
        symbols = parse_composition(run.composition, run.atoms)
        rho = check_density(symbols, run.number_density, mass_density=run.density)
    made, records, names = [], [], set()
    for one in run.target:
        options = dataclasses.asdict(one)
        options["name"] = unique_name(one.name if one.name is not None else one.function if one.function is not None else Path(one.file).stem, names)
        result, record = read_target(symbols=symbols, number_density=rho, **options)
        made.append(result)
        records.append(record)
    inputs = dict(targets=records)
    if run.restraint:
        inputs["restraints"] = [{key: value for key, value in dataclasses.asdict(one).items() if value is not None} for one in run.restraint]
    if run.init is not None:
        if not Path(run.init).is_file():
            raise FileNotFoundError(f"{run.init}: got no such file; needs starting structures (extxyz, POSCAR, CIF, ...); check the path")
        inputs["init"] = dict(file=run.init, sha256=hashlib.sha256(Path(run.init).read_bytes()).hexdigest())
    return made, inputs


def unique_name(name: str, taken: set) -> str:
    """``name`` made fit for a file, with a number where another of ``taken`` differs from it in case alone or not at all."""
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    found, index = clean, 2
    while found.lower() in {t.lower() for t in taken}:
        found, index = f"{clean}{index}", index + 1
    taken.add(found)
    return found
