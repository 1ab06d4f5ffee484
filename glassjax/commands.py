"""What each command of the command line does."""

from __future__ import annotations

import dataclasses
import json
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
        if np.isfinite(state.get("replicas_per_hour", np.nan)):
            text += f"   {state['replicas_per_hour']:.3g} replicas per hour"
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
    """The settings with what the command line gives; joins the other processes where it says so."""
    _join(options)
    for field in dataclasses.fields(run):
        value = getattr(options, field.name, None) if field.name != "target" else None
        if value is not None:
            setattr(run, field.name, value)
    return run


def _join(options) -> int:
    """Join the other processes where the command line says so; returns the number of this one."""
    from glassjax import distributed

    joint = [getattr(options, name) for name in ("coordinator", "processes", "process")]
    if options.distributed or any(v is not None for v in joint):
        distributed.initialise(*joint)
    return distributed.place()[0]


def _invert(run) -> int:
    from glassjax import inversion, measurements, settings

    if run.out is None:
        raise ValueError("got no folder for the results; needs one; pass --out DIR")
    options = settings.invert_options(run)
    targets, inputs = measurements.read_targets(run)
    result = inversion.invert(targets, **options, inputs=inputs, report=Progress())
    return _tell(result, Path(run.out))


def _tell(result, folder: Path) -> int:
    """Print a table of the replicas from the record that was written (process 0)."""

    from glassjax import distributed

    if distributed.place()[0]:
        return 0
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


def _may_train(out: Path, resume: bool) -> None:
    """Refuse to write over another training, or to continue what is not there."""
    state = out.with_suffix(".train.npz")
    if resume and out.exists() and not state.exists():
        raise ValueError(f"{out} is there but {state} is not, so its training cannot continue; pass another --out")
    if not resume and (out.exists() or state.exists()):
        raise ValueError(f"{out} is already there; needs a new name: pass --resume to continue that training, or another --out")


def train(options) -> int:
    """Train a prior."""
    from glassjax import distributed
    from glassjax.archive import file_record, write_whole
    from glassjax.io.atoms import read_structures
    from glassjax.plots import plot_learning_curve, png
    from glassjax.priors import training, validation
    from glassjax.priors.prior import load_prior, make_network

    process = _join(options)
    out = output_file(options.out, ".npz")
    distributed.first(lambda: _may_train(out, options.resume))
    start = load_prior(options.start) if options.start else None
    structures = read_structures(options.structures, options.elements)
    elements = tuple(options.elements) if options.elements else structures[0].elements
    known, unseen = validation.comparable(structures, options, elements)
    shape = dict(elements=len(elements)) | ({} if options.cutoff is None else dict(cutoff=options.cutoff))
    network = make_network(dict(name=options.network, options=shape))
    record = dict(files=[file_record(f) for f in options.structures])
    if options.resume and out.exists():  # what it began from then
        record |= {key: value for key, value in json.loads(load_prior(out).card).items() if key == "start"}
    elif start is not None:
        record["start"] = dict(prior=Path(options.start).name, steps=json.loads(start.card).get("steps"))
    names = ("minutes", "steps", "batch", "learning_rate", "seed", "strain", "floor", "sigma_min", "sigma_max")
    settings = training.TrainingOptions(**{name: getattr(options, name) for name in names})
    progress = Progress()

    def report(step, seconds, losses):
        share = max(seconds / (60 * options.minutes), step / options.steps if options.steps else 0.0)
        values = ", ".join("-" if v is None else f"{v:.3f}" for v in losses.values())
        left = seconds / share - seconds if share > 0 else float("nan")
        progress.line(f"{100 * min(1.0, share):3.0f} %   {clock(left)} left   step {step}   loss by noise band {values}")

    how = dict(network=network, elements=elements, options=settings, start=start, resume=options.resume, record=record)
    prior = training.train(structures, out=out, report=report, **how)
    if process:
        return 0
    write_whole(out.with_suffix(".png"), png(plot_learning_curve(out.with_suffix(".csv"))))
    print(f"prior in {out}, learning curve in {out.with_suffix('.csv')} and {out.with_suffix('.png')}")
    if unseen:
        validation.validate(prior, known, unseen, options, out)
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
    out = output_file(options.out, None)
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


def output_file(name, suffix: str | None) -> Path:
    """Path of a file to write, its folder made; raises ``ValueError`` for the wrong ending, ``PermissionError`` where it cannot be written."""
    from glassjax.archive import prove_writable

    path = Path(name)
    if suffix is not None and path.suffix != suffix:
        raise ValueError(f"got {path} as --out; needs a name that ends in {suffix}; rename it")
    if path.is_dir():
        raise ValueError(f"got {path} as --out, which is a folder; needs a file; name one inside it")
    try:
        prove_writable(path.parent)
    except OSError as error:
        raise PermissionError(f"cannot write {path} ({error.strerror}); needs a writable place; pass another --out") from error
    return path
