"""What a run is asked to do, from a TOML file or from the command line: named keys, unknown ones refused."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from glassjax.elements import check_density, parse_composition
from glassjax.io.measured import check_function, read_measured
from glassjax.protocols import protocol
from glassjax.targets import Target, target


@dataclasses.dataclass(kw_only=True)
class TargetSettings:
    """One measured curve: the file, what it holds, and how to model it (see `read_target`)."""

    file: str
    function: str
    weights: str | None = None
    uncertainty: float | None = None
    rmin: float | None = None
    rmax: float | None = None
    qmin: float | None = None
    qmax: float | None = None
    width: float | None = None
    window: str | None = None
    partial: str | None = None
    columns: list[int] | None = None
    repeated: str = "refuse"
    name: str | None = None


@dataclasses.dataclass(kw_only=True)
class RunSettings:
    """One run: targets and the options of `invert`."""

    target: list[TargetSettings] = dataclasses.field(default_factory=list)
    composition: str | None = None
    atoms: int | None = None
    density: float | None = None
    number_density: float | None = None
    prior: str = "silicon"
    init: str | None = None
    replicas: int = 8
    seed: int = 0
    steps: int | None = None
    method: str | None = None
    strength: float | None = None
    minimum_distance: float | dict | None = None
    protocol: str | dict = "default"
    chunk: int = 4
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
    blocks = table.pop("target", [])
    blocks = [blocks] if isinstance(blocks, dict) else blocks
    if not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
        raise ValueError(f"{path}: got target = {blocks!r}; needs a [[target]] table for each curve")
    targets = [_fill(TargetSettings, block, f"{path}, target {i + 1}") for i, block in enumerate(blocks)]
    run = _fill(RunSettings, table, str(path))
    for one in targets:
        one.file = str(path.parent / one.file)
    for key in ("init", "out"):
        if getattr(run, key) is not None:
            setattr(run, key, str(path.parent / getattr(run, key)))
    if (path.parent / run.prior).is_file():
        run.prior = str(path.parent / run.prior)
    run.target = targets
    return run


def _fill(kind, table: Mapping, where: str):
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name != "target"}
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
        return "list[int]" in names and all(isinstance(v, int) for v in value)
    return type(value).__name__ in names


def read_target(
    file,
    *,
    function: str,
    symbols: Sequence[str],
    number_density: float,
    weights: str | None = None,
    uncertainty: float | None = None,
    rmin: float | None = None,
    rmax: float | None = None,
    qmin: float | None = None,
    qmax: float | None = None,
    width: float | None = None,
    window: str | None = None,
    partial: str | tuple[str, str] | None = None,
    columns: Sequence[int] | None = None,
    repeated: str = "refuse",
    name: str | None = None,
) -> tuple[Target, dict]:
    """A target from a text file of 2-3 columns, and the facts about the file for the record.

    Args:
      file: path.
      function: "g", "G" or "S".
      symbols: composition, one symbol per atom.
      number_density: atoms per A^3.
      weights: "number", "neutron", "xray" (S) or "Z"; may be left out for one element.
      uncertainty: one number for all points; replaces the file's column.
      rmin: lower end of the fitted range of g or G, A.
      rmax: upper end of that range; of S(Q), the farthest pair that counts (10 A).
      qmin: lower end of the fitted range of S, 1/A.
      qmax: upper end of that range.
      width: Gaussian broadening of g and G, A (0.15).
      window: real-space window of S, "cosine", "lorch" or "none".
      partial: "A-B" when the data are one partial.
      columns: which columns hold x, y[, uncertainty], from 0.
      repeated: "refuse" or "mean", for points that share one x.
      name: in file names; by default the function.

    Raises:
      FileNotFoundError, ValueError: see `read_measured`, `check_function` and `target`; options that do not belong to the function.
    """
    own, other = (("qmin", "qmax"), ("rmin", "width")) if function == "S" else (("rmin", "rmax"), ("qmin", "qmax", "window"))
    given = dict(rmin=rmin, qmin=qmin, qmax=qmax, width=width, window=window)
    wrong = [key for key in other if given[key] is not None]
    if wrong:
        raise ValueError(f"got {', '.join(wrong)} with function {function}; needs {' and '.join(own)} for its range; leave the others out")
    measured = read_measured(file, columns=None if columns is None else tuple(columns), repeated=repeated)
    check_function(measured, function, number_density)
    pair = tuple(partial.split("-")) if isinstance(partial, str) else partial
    if pair is not None and len(pair) != 2:
        raise ValueError(f"got partial {partial!r}; needs two elements, such as Si-O")
    options = dict(xmin=qmin, xmax=qmax, rmax=rmax, window=window) if function == "S" else dict(xmin=rmin, xmax=rmax, width=width)
    options = {key: value for key, value in options.items() if value is not None}
    made = target(
        measured.x,
        measured.y,
        symbols,
        function=function,
        number_density=number_density,
        weights=weights,
        uncertainty=measured.uncertainty if uncertainty is None else uncertainty,
        partial=pair,
        name=name,
        **options,
    )
    source = "one number given" if uncertainty is not None else "the file's column" if measured.uncertainty is not None else "default"
    record = dict(name=made.name, file=str(file), sha256=measured.sha256, function=function, weights=made.observable.weights, uncertainty=source)
    return made, record | dict(points_in_file=len(measured.x), points_used=len(made.data), options=options)


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
        options["name"] = _unique(one.name or one.function, names)
        result, record = read_target(**options, symbols=symbols, number_density=rho)
        made.append(result)
        records.append(record)
    inputs = dict(targets=records)
    if run.init is not None:
        if not Path(run.init).is_file():
            raise FileNotFoundError(f"{run.init}: got no such file; needs starting structures (extxyz, POSCAR, CIF, ...); check the path")
        inputs["init"] = dict(file=run.init, sha256=hashlib.sha256(Path(run.init).read_bytes()).hexdigest())
    return made, inputs


def _unique(name: str, taken: set) -> str:
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    found, index = clean, 2
    while found.lower() in {t.lower() for t in taken}:
        found, index = f"{clean}{index}", index + 1
    taken.add(found)
    return found


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
    same = ("composition", "atoms", "density", "number_density", "prior", "init", "replicas", "seed", "steps", "method", "strength")
    return {key: getattr(run, key) for key in (*same, "chunk", "out", "resume")} | dict(plan=plan, minimum_distance=distances)
