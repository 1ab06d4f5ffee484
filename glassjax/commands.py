"""What each command of the command line does."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np


class Progress:
    """Progress on a stream: one line rewritten on a terminal, a plain line every few seconds elsewhere. Callable with the dict of `sample`."""

    def __init__(self, stream=None, every: float = 10.0):
        self.stream = sys.stderr if stream is None else stream
        self.tty = self.stream.isatty()
        self.every, self.last, self.width = every, -1e9, 0

    def __call__(self, state: dict) -> None:
        text = f"{100 * state['done'] / state['total']:3.0f} %   {clock(state['left'])} left"
        if state["chunks"] > 1:
            text += f"   chunk {state['chunk'] + 1} of {state['chunks']}"
        if state["r_factor"]:
            text += "   R = " + ", ".join(f"{r:.3f}" for r in state["r_factor"])
        if state.get("chi_squared"):
            text += "   chi2 = " + ", ".join(f"{c:.2g}" for c in state["chi_squared"])
        if len(state.get("share", ())) > 1:
            text += "   share = " + ", ".join(f"{100 * r:.0f} %" for r in state["share"])
        self.line(text, done=state["done"] >= state["total"])

    def line(self, text: str, *, done: bool = False) -> None:
        """Show one line of progress; the last is always shown."""
        now = time.monotonic()
        if self.tty:
            self.stream.write("\r" + text.ljust(self.width) + ("\n" if done else ""))
            self.width = 0 if done else len(text)
        elif done or now - self.last >= self.every:
            self.stream.write(text + "\n")
            self.last = now
        self.stream.flush()


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    if not np.isfinite(seconds):
        return "?"
    whole = int(round(max(0.0, seconds)))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def demo(options) -> int:
    """Invert the shipped target."""
    from glassjax.settings import RunSettings, TargetSettings

    file = Path(__file__).parent / "data" / "demo_target.dat"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: got no demo target; needs the package's data; install glassjax again")
    header = [line.split("=") for line in file.read_text().splitlines() if line.startswith("#") and "number_density" in line and "=" in line]
    density = float(header[0][1].split()[0])
    target = TargetSettings(file=str(file), function="g")
    return _invert(
        RunSettings(
            target=[target],
            composition="Si",
            atoms=216,
            number_density=density,
            replicas=options.replicas,
            seed=options.seed,
            steps=options.steps,
            out=options.out,
            resume=options.resume,
        )
    )


def invert(options) -> int:
    """Invert one target, or what a run file says (options on the command line win)."""
    from glassjax.settings import RunSettings, TargetSettings, read_run

    target_keys = [f.name for f in dataclasses.fields(TargetSettings) if f.name not in ("file", "name")]
    given = {key: getattr(options, key) for key in target_keys if getattr(options, key, None) is not None}
    if Path(options.target).suffix.lower() == ".toml":
        run = read_run(options.target)
        if given:
            raise ValueError(f"got --{', --'.join(given)} with a run file; needs them in its [[target]] tables; move them there")
        if not run.target:
            raise ValueError(f"{options.target}: got no [[target]] table; needs at least one; add it, or use `glassjax generate`")
    else:
        run = RunSettings()
        if not Path(options.target).is_file():
            raise FileNotFoundError(f"{options.target}: got no such file; needs a text file of columns x, y[, uncertainty]; check the path")
        run.target = [TargetSettings(file=options.target, **given)]
    return _invert(_with_options(run, options))


def generate(options) -> int:
    """Sample the prior alone."""
    from glassjax.settings import RunSettings

    return _invert(_with_options(RunSettings(), options))


def _with_options(run, options):
    """The settings with what the command line gives."""
    for field in dataclasses.fields(run):
        value = getattr(options, field.name, None) if field.name != "target" else None
        if value is not None:
            setattr(run, field.name, value)
    return run


def _invert(run) -> int:
    from glassjax import inversion, measurements, settings

    if run.out is None:
        raise ValueError("got no folder for the results; needs one; pass --out DIR")
    options = settings.invert_options(run)
    targets, inputs = measurements.read_targets(run)
    result = inversion.invert(targets, **options, inputs=inputs, report=Progress())
    return _tell(result, Path(run.out))


def _tell(result, folder: Path) -> int:
    """Print a table of the replicas from the record that was written."""
    import json

    record = json.loads((folder / "run.json").read_text())
    names = [t.name for t in result.targets]
    print("replica  " + "".join(f"R {n:<8}|d{n}|{'':<6}" for n in names) + "shortest  coordination  angle")
    for row in record["replicas"]:
        if row["status"] != "ok":
            print(f"{row['replica']:7d}  {row['status']}: left out of the results")
            continue
        fits = "".join(f"{row[f'r_factor_{n}']:<10.3f}{row[f'mean_abs_difference_{n}']:<10.4f}" for n in names)
        angle = "-" if row["angle_mean"] is None else f"{row['angle_mean']:.1f}±{row['angle_deviation']:.1f}"
        print(f"{row['replica']:7d}  {fits}{row['shortest_distance']:.2f} A    {row['mean_coordination']:<12.2f}  {angle}")
    if not result.ensemble.good():
        raise RuntimeError("every replica diverged; take more steps (--steps), lower --strength, or check the target and the density")
    print(f"{clock(record['timings']['total'])} in all; results in {folder}")
    return 0


def train(options) -> int:
    """Train a prior."""
    from glassjax.io.atoms import read_structures
    from glassjax.priors import training
    from glassjax.priors.prior import make_network
    from glassjax.report import plot_learning_curve, png, write_whole

    out = _output_file(options.out, ".npz")
    if options.resume and out.exists() and not out.with_suffix(".train.npz").exists():
        raise ValueError(f"{out} is there but {out.with_suffix('.train.npz')} is not, so its training cannot continue; pass another --out")
    if not options.resume and (out.exists() or out.with_suffix(".train.npz").exists()):
        raise ValueError(f"{out} is already there; needs a new name: pass --resume to continue that training, or another --out")
    structures = read_structures(options.structures, options.elements)
    elements = tuple(options.elements) if options.elements else structures[0].elements
    network = make_network(dict(name=options.network, options=dict(elements=len(elements))))
    record = dict(files=[dict(file=str(f), sha256=hashlib.sha256(Path(f).read_bytes()).hexdigest()) for f in options.structures])
    settings = training.TrainingOptions(minutes=options.minutes, steps=options.steps, batch=options.batch, seed=options.seed, strain=options.strain)
    progress = Progress()

    def report(step, seconds, losses):
        share = max(seconds / (60 * options.minutes), step / options.steps if options.steps else 0.0)
        values = ", ".join("-" if v is None else f"{v:.3f}" for v in losses.values())
        left = seconds / share - seconds if share > 0 else float("nan")
        progress.line(f"{100 * min(1.0, share):3.0f} %   {clock(left)} left   step {step}   loss by noise band {values}")

    training.train(structures, out=out, network=network, elements=elements, options=settings, resume=options.resume, record=record, report=report)
    write_whole(out.with_suffix(".png"), png(plot_learning_curve(out.with_suffix(".csv"))))
    print(f"prior in {out}, learning curve in {out.with_suffix('.csv')} and {out.with_suffix('.png')}")
    return 0


def melt_quench(options) -> int:
    """Make cells by melting and quenching."""
    from glassjax import melt_quench as md
    from glassjax.elements import check_density, parse_composition

    symbols = parse_composition(options.composition, options.atoms)
    check_density(symbols, mass_density=options.density)
    md.find_potential(tuple(dict.fromkeys(symbols)))
    if options.rate is not None and not options.rate > 0:
        raise ValueError(f"got a cooling rate of {options.rate} K/ps; needs a positive one; 10 to 100 is usual")
    if options.snapshots < 1 or options.replicas < 1:
        raise ValueError(f"got {options.replicas} replicas and {options.snapshots} snapshots; needs at least 1 of each")
    out = _output_file(options.out, None)
    if options.published:
        plan = md.published(100.0 if options.rate is None else options.rate)
    else:
        plan = md.Protocol()
        if options.rate is not None:
            (hot, first), (cold, _), last = plan.stages
            plan = dataclasses.replace(plan, stages=((hot, first), (cold, float(options.rate)), last))
    plan = dataclasses.replace(plan, snapshots=options.snapshots)
    progress, started = Progress(), time.monotonic()

    def report(replica, fraction, temperature):
        share = (replica + fraction) / options.replicas
        spent = time.monotonic() - started
        left = clock(spent / share - spent) if share > 0 else "?"
        progress.line(f"{100 * share:3.0f} %   {left} left   cell {replica + 1} of {options.replicas}, {temperature:.0f} K", done=share >= 1)

    md.melt_quench(symbols, options.density, out=out, replicas=options.replicas, seed=options.seed, protocol=plan, report=report)
    print(f"{options.replicas} cells of {len(symbols)} atoms in {out}")
    return 0


def spectra(options) -> int:
    """Curves of structures: one pair pass per frame for every function and partial that was asked for."""
    from glassjax.io.atoms import read_structures
    from glassjax.measurements import unique_name
    from glassjax.preparation import check_reach
    from glassjax.report import AXES, plot_spectra, png, write_whole
    from glassjax.spectra import compute_spectra

    out = _output_file(options.out, None)
    if out.suffix.lower() == ".png":
        raise ValueError(f"got {out} as --out; needs a CSV file; the picture goes beside it")
    frames = read_structures(options.structures)
    symbols = frames[0].symbols
    for index, frame in enumerate(frames):
        if any(frame.symbols.count(e) * len(symbols) != symbols.count(e) * len(frame.symbols) for e in frame.elements):
            raise ValueError(f"got frame {index} of another composition than frame 0; needs one composition; compute them one by one")
    fractions = {e: symbols.count(e) / len(symbols) for e in frames[0].elements}
    made = [item for function in options.function for item in _observables(function, fractions, options)]
    for index, frame in enumerate(frames):
        for label, _, _, one in made:
            check_reach(one.rmax, frame, f"{label} of frame {index}")
    curves = compute_spectra(frames, [one for *_, one in made])
    written, taken = [], set()
    for (label, function, x, one), values in zip(made, curves, strict=True):
        head = f"# {label}: {AXES[function][2]}\n# {one.convention}\n# " + ", ".join(map(str, options.structures)) + "\n"
        names = ",".join(["x", "mean", *[f"frame_{i}" for i in range(len(frames))]])
        rows = "\n".join(",".join(f"{v:.7g}" for v in row) for row in np.column_stack([x, values.mean(axis=0), values.T]))
        path = out if len(made) == 1 else out.with_name(f"{out.stem}_{unique_name(label, taken)}{out.suffix}")
        write_whole(path, f"{head}{names}\n{rows}\n".encode())
        written.append(path)
    panels = [(label, function, x, values) for (label, function, x, _), values in zip(made, curves, strict=True)]
    write_whole(out.with_suffix(".png"), png(plot_spectra(panels)))
    print(f"{len(frames)} frames, {len(made)} curves each: {', '.join(map(str, written))}; picture in {out.with_suffix('.png')}")
    return 0


def _observables(function: str, fractions: dict, options) -> list[tuple]:
    """(label, function, x, observable) of one function: the total, or with --partials every pair, or every triplet of an ADF."""
    import itertools

    from glassjax.analysis.local import bond_cutoffs
    from glassjax.observables import pair_distribution, structure_factor
    from glassjax.observables.angle import angle_distribution
    from glassjax.observables.coordination import coordination_distribution
    from glassjax.observables.pair import REAL_SPACE

    elements = list(fractions)
    pairs = [tuple(p.split("-")) for p in options.partial] if options.partial else None
    if pairs and any(len(p) != 2 for p in pairs):
        raise ValueError(f"got partial {' '.join(options.partial)}; needs two elements each, such as Si-O")
    if options.partials:
        pairs = list(itertools.combinations_with_replacement(elements, 2))
    cutoff = bond_cutoffs(elements) if options.cutoff is None else options.cutoff
    if function == "ADF":
        x = np.linspace(0.0, 180.0, 181 if options.points is None else options.points)
        ends = list(itertools.combinations_with_replacement(elements, 2))
        triplets = [f"{a}-{c}-{b}" for c in elements for a, b in ends] if options.partials else options.triplet if options.triplet else [None]
        made = [angle_distribution(x, fractions, cutoff=cutoff, triplet=t, width=0.1) for t in triplets]
        return [("ADF" if t is None else f"ADF {t}", "ADF", x, one) for t, one in zip(triplets, made, strict=True)]
    if function == "coordination distribution":
        x = np.arange(0.0, 15.0)
        every = pairs if pairs else [(a, b) for a in elements for b in elements]
        limit = cutoff if not isinstance(cutoff, dict) else None
        made = [coordination_distribution(p, x, fractions, cutoff=cutoff.get(p, cutoff.get(p[::-1])) if limit is None else limit) for p in every]
        return [(f"coordination {a}-{b}", function, x, one) for (a, b), one in zip(every, made, strict=True)]
    if pairs is None and len(elements) > 1 and options.weights is None and function not in ("S_NN", "S_NC", "S_CC"):
        raise ValueError(f"got a mixture of {', '.join(elements)} without weights; needs --weights number, neutron, xray or Z")
    weights = "number" if options.weights is None else options.weights
    if function in REAL_SPACE:
        x = np.linspace(options.rmin, 8.0 if options.rmax is None else options.rmax, 100 if options.points is None else options.points)
        settings = dict(width=options.width, termination=options.termination, qdamp=options.qdamp, qbroad=options.qbroad)
        settings["qmax"] = options.qmax if options.termination or weights == "xray" else None
        make = pair_distribution
    else:
        x = np.linspace(options.qmin, 20.0 if options.qmax is None else options.qmax, 391 if options.points is None else options.points)
        settings = dict(rmax=10.0 if options.rmax is None else options.rmax, window=options.window, qdamp=options.qdamp)
        settings |= dict(displacement=options.displacement) if function == "I" else {}
        make = structure_factor
    if pairs is None or function in ("S_NN", "S_NC", "S_CC"):
        return [(function, function, x, make(x, fractions, function=function, weights=weights, **settings))]
    return [
        (f"{function} {a}-{b}", function, x, make(x, fractions, function=function, weights=weights, partial=(a, b), **settings)) for a, b in pairs
    ]


def identify(options) -> int:
    """Say what a file holds."""
    from glassjax.io.identify import identify as look

    columns = None if options.columns is None else tuple(options.columns)
    found = look(options.file, composition=options.composition, number_density=options.number_density, columns=columns)
    print(found.text())
    if found.function not in (None, "I"):
        from glassjax.artefacts import find_artefacts
        from glassjax.io.measured import read_measured

        measured = read_measured(options.file, columns=columns, repeated="mean")
        for artefact in _artefacts(find_artefacts, measured, found, options):
            print(f"{'artefact':<10} {artefact.text}")
    return 0


def _artefacts(find, measured, found, options):
    """Artefacts of the file, where what is known suffices to look for them."""
    try:
        return find(measured.x, measured.y, found.function, number_density=options.number_density)
    except ValueError:  # the floor of this function needs a density or <b>^2 that was not given
        return []


def convert(options) -> int:
    """Structures from one file format to another."""
    from glassjax.io.atoms import read_structures
    from glassjax.io.writers import write_structures

    written = write_structures(options.out, read_structures(options.structures))
    print(f"written: {', '.join(map(str, written))}")
    return 0


def _output_file(name, suffix: str | None) -> Path:
    """Path of a file to write, its folder made; raises ``ValueError`` for the wrong ending, ``PermissionError`` where it cannot be written."""
    path = Path(name)
    if suffix is not None and path.suffix != suffix:
        raise ValueError(f"got {path} as --out; needs a name that ends in {suffix}; rename it")
    if path.is_dir():
        raise ValueError(f"got {path} as --out, which is a folder; needs a file; name one inside it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".write-{os.getpid()}")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"cannot write {path} ({error.strerror}); needs a writable place; pass another --out") from error
    return path
