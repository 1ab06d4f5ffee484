"""What a run is asked to do, from a TOML file or from the command line: named keys, unknown ones refused."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path

from glassjax.protocols import protocol

EVERYWHERE = ("file", "function", "uncertainty", "weight", "mask", "background", "name")  # options of every target


@dataclasses.dataclass(kw_only=True)
class TargetSettings:
    """One measured curve: the file, what it holds, and how to model it.

    Attributes:
      file: path of a text file of columns.
      function: "g", "G", "G_keen", "D", "T", "RDF", "S", "F_keen", "Q(S-1)", "I", "ADF", "coordination distribution", "chi(k)", "chi(R)" or "mu(E)";
        None to identify the file.
      weights: "number", "neutron", "xray" or "Z"; None for what the file says, or for one element.
      uncertainty: one number for all points (replaces the file's column), or "noise" to estimate it from the data.
      weight: multiplies 1 / uncertainty^2.
      rmin: lower end of the fitted range in r, A.
      rmax: upper end of that range; of reciprocal functions, the farthest pair that counts (10 A).
      qmin: lower end of the fitted range in Q; of real-space functions, the lowest Q of the measurement.
      qmax: upper end of that range, or the highest Q of the measurement (by default what the header says).
      xmin: lower end of the fitted range of angles (degrees) or coordination numbers.
      xmax: upper end of that range.
      mask: intervals [[low, high], ...] to leave out.
      artefacts: "report" or "mask" unphysical ripples at small r and spikes.
      width: Gaussian broadening in r, A, or in angle, rad.
      window: real-space window of reciprocal functions, "cosine", "lorch" or "none"; of an absorption curve, the window in k by larch's names.
      termination: of real-space functions, "sharp", "lorch" or "soper-barney"; None lets the width stand for it.
      qdamp: 1/A: a number, "infer", or {start, deviation, bounds}; by default what the header says.
      qbroad: 1/A; by default what the header says.
      displacement: B of a function of Q, A^2: a number, "infer", or {start, deviation, bounds}.
      scale: a number, "infer", or {start, deviation, bounds}.
      background: order of an inferred polynomial, or {order, deviation}.
      partial: "A-B" when the data are one partial.
      isotopes: {element: isotope or {isotope: amount}}.
      switch: A, over which a bond fades at that cutoff; 0 (the published definition of angles) counts it whole or not at all, 0.3 suits guidance.
      cutoff: bond cutoff of angles and coordination, A, or {"A-B": cutoff}.
      triplet: "O-Si-O", centre in the middle.
      axis: "Q" or "2theta", where the file does not say what its first column is.
      wavelength: A, turns 2theta into Q.
      edges: "centre", or "left" where x holds left bin edges that the layout does not announce (half a bin is added).
      columns: which columns of the file hold x, y[, uncertainty], from 0.
      repeated: "refuse" or "mean", for points that share one x.
      edge: of an absorption curve, absorber and edge such as "Si:K"; by default what the file says.
      kmin: 1/A, of chi(k) or of the transform's window; with kmax, kweight, dk, e0 and rbkg by default what the file says.
      kmax: 1/A.
      kweight: power of k.
      dk: 1/A, sill of the window.
      e0: eV, edge energy of the data.
      rbkg: A, of the background removal.
      s02: S0^2 (edge step of mu(E)): a number, "infer", or {start, deviation, bounds}.
      e0_shift: eV, E0 of the model minus E0 of the data: the same.
      mean_square: sigma^2 of chi(k), A^2: the same.
      multiple: add multiple scattering to chi(k): true, or its longest half path, A.
      scattering: file of scattering tables, from `glassjax exafs-table`; by default the shipped ones.
      surrogate: of mu(E): a shipped surrogate's name, or a file.
      group: of an Athena project with several.
      kpower: n of a file of k^n chi(k), where it does not say.
      energy_unit: "eV" or "keV", where the file's is wrong.
      name: in file names; by default the function.
    """

    file: str
    function: str | None = None
    weights: str | None = None
    uncertainty: float | str | None = None
    weight: float = 1.0
    rmin: float | None = None
    rmax: float | None = None
    qmin: float | None = None
    qmax: float | None = None
    xmin: float | None = None
    xmax: float | None = None
    mask: list | None = None
    artefacts: str = "report"
    width: float | None = None
    window: str | None = None
    termination: str | None = None
    qdamp: float | str | dict | None = None
    qbroad: float | None = None
    displacement: float | str | dict | None = None
    scale: float | str | dict = 1.0
    background: int | dict | None = None
    partial: str | tuple | None = None
    isotopes: dict | None = None
    cutoff: float | dict | None = None
    switch: float | None = None
    triplet: str | None = None
    axis: str | None = None
    wavelength: float | None = None
    edges: str = "centre"
    columns: list[int] | None = None
    repeated: str = "refuse"
    edge: str | None = None
    kmin: float | None = None
    kmax: float | None = None
    kweight: float | None = None
    dk: float | None = None
    e0: float | None = None
    rbkg: float | None = None
    s02: float | str | dict = 1.0
    e0_shift: float | str | dict = 0.0
    mean_square: float | str | dict = 0.0
    multiple: bool | float = False
    scattering: str | None = None
    surrogate: str | None = None
    group: str | None = None
    kpower: int | None = None
    energy_unit: str | None = None
    name: str | None = None


def refuse_others(one: TargetSettings, allowed, function: str) -> None:
    """Raise ``ValueError`` naming the options that are given but are neither of every target nor among the ``allowed`` ones of this function."""
    known = (*EVERYWHERE, *allowed)
    wrong = [f.name for f in dataclasses.fields(one) if f.name not in known and getattr(one, f.name) != f.default]
    if wrong:
        raise ValueError(f"{one.file}: got {', '.join(wrong)} with function {function}; needs some of {', '.join(allowed)}; leave the others out")


@dataclasses.dataclass(kw_only=True)
class RestraintSettings:
    """A restraint: ``kind`` "coordination" (low, target or high number of neighbours inside ``cutoff``) or "distance-window" (the ``count`` nearest
    neighbours between ``low`` and ``high``, A), for the ``pair`` "A-B", centre first; several on one pair need a ``name`` each."""

    kind: str
    pair: str
    low: float | None = None
    target: float | None = None
    high: float | None = None
    cutoff: float | None = None
    count: int | None = None
    uncertainty: float | None = None
    name: str | None = None


@dataclasses.dataclass(kw_only=True)
class RunSettings:
    """One run: targets, restraints and the options of `invert`."""

    target: list[TargetSettings] = dataclasses.field(default_factory=list)
    restraint: list[RestraintSettings] = dataclasses.field(default_factory=list)
    composition: str | None = None
    atoms: int | None = None
    density: float | None = None
    number_density: float | None = None
    infer_density: bool | dict = False
    prior: str = "silicon"
    init: str | None = None
    replicas: int = 8
    seed: int = 0
    steps: int | None = None
    method: str | None = None
    strength: float | None = None
    minimum_distance: float | dict | None = None
    protocol: str | dict = "default"
    chunk: int | None = None
    out: str | None = None
    resume: bool = False


def read_run(path) -> RunSettings:
    """Settings from a TOML file; paths in it are relative to the file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not TOML, an unknown key (named, with the nearest known one), a missing key or a value of the wrong kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no such file; needs a run in TOML; check the path")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: got a file that is not TOML ({error}); needs key = value lines and [[target]] tables; repair it") from error
    targets = [_fill(TargetSettings, block, f"{path}, target {i + 1}") for i, block in enumerate(_blocks(table, "target", path))]
    restraints = [_fill(RestraintSettings, block, f"{path}, restraint {i + 1}") for i, block in enumerate(_blocks(table, "restraint", path))]
    run = _fill(RunSettings, table, str(path))
    for one in targets:
        one.file = str(path.parent / one.file)
        for key in ("scattering", "surrogate"):
            if getattr(one, key) is not None and (path.parent / getattr(one, key)).is_file():
                setattr(one, key, str(path.parent / getattr(one, key)))
    for key in ("init", "out"):
        if getattr(run, key) is not None:
            setattr(run, key, str(path.parent / getattr(run, key)))
    if (path.parent / run.prior).is_file():
        run.prior = str(path.parent / run.prior)
    run.target, run.restraint = targets, restraints
    return run


def _blocks(table: dict, name: str, path) -> list[dict]:
    blocks = table.pop(name, [])
    blocks = [blocks] if isinstance(blocks, dict) else blocks
    if not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
        raise ValueError(f"{path}: got {name} = {blocks!r}; needs a [[{name}]] table for each; correct it")
    return blocks


def _fill(kind, table: Mapping, where: str):
    fields = {f.name: f for f in dataclasses.fields(kind) if kind is not RunSettings or f.name not in ("target", "restraint")}
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise ValueError(f"{where}: got unknown key {key!r}; needs keys among {', '.join(fields)}; {hint}")
    missing = [n for n, f in fields.items() if n not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{where}: got no {' and no '.join(missing)}; needs a value for each; add the key")
    for key, value in table.items():
        if not _fits(value, fields[key].type):
            raise ValueError(f"{where}: got {key} = {value!r}; needs {fields[key].type.replace(' | None', '')}; correct the value")
    return kind(**table)


def _fits(value, annotation: str) -> bool:
    """Whether a TOML value has the annotated type (whole numbers pass for decimal ones)."""
    names = [part.strip() for part in annotation.split("|")]
    if isinstance(value, bool):
        return "bool" in names
    if isinstance(value, int):
        return "int" in names or "float" in names
    if isinstance(value, list):
        return "list" in names or ("list[int]" in names and all(isinstance(v, int) for v in value))
    return type(value).__name__ in names


def invert_options(run: RunSettings) -> dict:
    """The keyword options of `invert` that these settings mean."""
    plan = run.protocol
    if isinstance(plan, dict):
        plan = protocol(plan.get("name", "default"), **{k: v for k, v in plan.items() if k != "name"})
    distances = run.minimum_distance
    if isinstance(distances, dict):
        pairs = {tuple(key.split("-")): value for key, value in distances.items()}
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"got minimum_distance for {', '.join(distances)}; needs pairs such as Si-O")
        distances = pairs
    restraints = [_restraint(one) for one in run.restraint]
    same = ("composition", "atoms", "density", "number_density", "infer_density", "prior", "init", "replicas", "seed", "steps", "method", "strength")
    return {key: getattr(run, key) for key in (*same, "chunk", "out", "resume")} | dict(plan=plan, minimum_distance=distances, restraints=restraints)


def _restraint(one: RestraintSettings):
    """A function score -> score, for the structures' elements."""
    from glassjax.restraints import coordination_restraint, distance_window

    kinds = {
        "coordination": (coordination_restraint, ("low", "target", "high", "cutoff", "uncertainty", "name"), ("cutoff",)),
        "distance-window": (distance_window, ("low", "high", "count", "name"), ("low", "high", "count")),
    }
    if one.kind not in kinds:
        raise ValueError(f"got a restraint of kind {one.kind!r}; needs one of {', '.join(kinds)}; correct it")
    make, names, needed = kinds[one.kind]
    given = {f.name: getattr(one, f.name) for f in dataclasses.fields(one) if f.name not in ("kind", "pair")}
    strange = [name for name, value in given.items() if value is not None and name not in names]
    if strange:
        raise ValueError(f"got {', '.join(strange)} in a restraint of kind {one.kind}; needs some of {', '.join(names)}; remove the others")
    missing = [name for name in needed if given[name] is None]
    if missing:
        raise ValueError(f"got a restraint of kind {one.kind} on {one.pair} without {', '.join(missing)}; needs a value for each; add it")
    values = {name: given[name] for name in names if given[name] is not None}
    return Restrain(make=make, pair=one.pair, values=values)


@dataclasses.dataclass(frozen=True)
class Restrain:
    """A restraint that waits for a score: ``Restrain(...)(score, elements)``."""

    make: object
    pair: str
    values: dict

    def __call__(self, score, elements):
        """The restrained score."""
        return self.make(score, self.pair, elements, **self.values)
