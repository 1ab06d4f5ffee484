"""Amorphous carbon as in Kwon et al., Mach. Learn.: Sci. Technol. 5, 045037 (2024): a prior, a XANES surrogate, and what they make together.

    python benchmarks/carbon.py [--parts a b c d] [--prior carbon] [--surrogate carbon-xanes] [--data ../shared/data/carbon] [--out DIR] [--short]

(a) the prior alone at 1.5, 2.5 and 3.5 g/cm3, 216 and 2000 atoms, against the cells of the data: coordination, g(r), and the surrogate's spectrum;
(b) at 2.0 g/cm3, guided by the mean spectrum of all two-fold, and of all four-fold, sites of the data, against the prior alone;
(c) diamond with random displacements, with the prior alone and guided by the spectrum of a cell of 3.5 g/cm3, over strengths: displacements with a
    root mean square length of 0.4 A (0.23 A per component), and of 0.4 A per component; then from 0.23 A with atoms that guidance may move by 0.5 A
    per step instead of 0.1 A, by the spectra of a cell of 3.5 and of one of 2.5 g/cm3;
(d) cycles of re-noising to 0.24 A and denoising, from quick samples at 1.5 g/cm3 (prior alone) and from the two-fold ensemble of (b), guided.

A bond is a pair closer than 1.85 A. Every run keeps a folder below --out, and is not repeated when that holds its results; --out must be another one
when the prior or the surrogate changed. --short takes 2 replicas of a few steps, to see that everything works.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import glassjax
from glassjax._pytree import replace
from glassjax.absorption_targets import absorption_target
from glassjax.analysis import diamond_fraction
from glassjax.protocols import protocol
from glassjax.report import curve

HERE = Path(__file__).parent
BOND = 1.85  # A
HELD_OUT = "d0.0_19"  # cell of 3.5 g/cm3 that the surrogate was not trained on
SHAKEN = dict(length=0.4 / np.sqrt(3), component=0.4)  # A per component, of the perturbed diamond: 0.4 A long, or 0.4 A in each direction
RENOISE = 0.24  # A, Kwon et al.
INDEX = np.arange(100.0)  # of the points of a spectrum: no energy axis is given
RADII = np.linspace(0.08, 8.0, 100)


def load_data(folder: Path):
    """Cells, their densities (g/cm3), coordination numbers [cells, n] and spectra [cells, n, 100]."""
    from ase.io import read
    from ase.neighborlist import neighbor_list

    cells = read(folder / "ac_gap_train.extxyz", ":")
    numbers = np.stack([np.bincount(neighbor_list("i", atoms, BOND), minlength=len(atoms)) for atoms in cells])
    spectra = np.load(folder / "ac_gap_train_xanes.npz")["xanes"]
    return cells, np.array([atoms.info["density_g_cm3"] for atoms in cells]), numbers, spectra


def describe(structure) -> dict:
    """Shares of atoms by number of bonds, share in diamond surroundings, shortest distance."""
    shares = glassjax.coordination_fractions(structure, BOND)
    row = {f"fold_{n}": shares.get(n, 0.0) for n in range(6)}
    row["singly_bonded"] = shares.get(0, 0.0) + shares.get(1, 0.0)
    return row | dict(diamond=diamond_fraction(structure), shortest=glassjax.shortest_distance(structure))


def summarise(rows: list[dict]) -> dict:
    """Mean and standard error of each number over the replicas."""
    summary = {}
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        summary[key] = dict(mean=float(values.mean()), standard_error=error)
    return summary


def keeps(folder: Path, asked: str) -> bool:
    """Whether a folder holds the finished run that is asked for; an empty one takes the question, another run's is refused."""
    note = folder / "asked.json"
    if note.exists() and note.read_text() != asked:
        raise ValueError(f"{folder} holds a run with {note.read_text()}, not {asked}; needs a folder of its own: pass another --out")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(asked)
    return (folder / "seconds.json").exists()


class Runs:
    """The runs of one call of this script: their folders, settings, and results so far."""

    def __init__(self, arguments):
        self.out, self.results, self.seed, self.chunk = Path(arguments.out), Path(arguments.results), arguments.seed, arguments.chunk
        self.prior = glassjax.load_prior(arguments.prior)
        self.surrogate = glassjax.load_surrogate(arguments.surrogate)
        self.cells, self.densities, self.numbers, self.spectra = load_data(Path(arguments.data))
        self.diamond = glassjax.read_structures(Path(arguments.data) / "diamond.extxyz")[0]
        self.short, self.large = arguments.short, arguments.large
        if arguments.fresh:
            self.results.unlink(missing_ok=True)
        names = dict(prior=str(arguments.prior), surrogate=str(arguments.surrogate), bond=BOND, seed=arguments.seed, short=arguments.short)
        self.record = dict(settings=names)

    def target(self, data, atoms: int, number_density: float, move: float | None = None):
        """The mean spectrum ``data`` [100] as a target, uncertain by 0.02 of its maximum (the default); ``move`` (A) replaces its `largest_move`."""
        options = dict(function="mu(E)", number_density=number_density, edge="C:K", surrogate=self.surrogate)
        made = absorption_target(INDEX, data, ["C"] * atoms, **options)
        return made if move is None else replace(made, observable=replace(made.observable, largest_move=move))

    def spectrum(self, structures) -> np.ndarray:
        """The surrogate's spectrum [100], mean over structures."""
        observable = glassjax.spectrum(self.surrogate)
        return np.mean([curve(observable, structure) for structure in structures], axis=0)

    def sample(
        self,
        name: str,
        data=None,
        *,
        replicas: int,
        plan: dict,
        atoms: int = 216,
        density: float | None = None,
        init=None,
        strength=None,
        move=None,
        seed=0,
    ):
        """Structures of one run, made now or read from its folder, and its entry in the results."""
        plan = plan | (dict(steps=6, corrections=0, finish=True) if self.short else {})
        replicas = min(replicas, 2) if self.short else replicas
        folder = self.out / name.replace(" ", "_")
        settings = dict(replicas=replicas, atoms=atoms, density=density, strength=strength, guided=data is not None, seed=self.seed + seed, **plan)
        settings |= {} if move is None else dict(move=move)
        asked = json.dumps(settings | self.record["settings"], sort_keys=True, default=str)
        if not keeps(folder, asked):
            started = time.monotonic()
            place = dict(composition="C", atoms=atoms, number_density=self.number_density(atoms, density))
            goal = () if data is None else self.target(data, atoms, place["number_density"], move)
            starts = init[:replicas] if isinstance(init, list) else init
            glassjax.invert(
                goal,
                **place,
                prior=self.prior,
                replicas=replicas,
                chunk=1 if atoms > 1000 or data is not None else self.chunk,
                seed=self.seed + seed,
                init=starts,
                strength=strength,
                plan=protocol("default", **plan),
                out=folder,
                resume=True,
            )
            (folder / "seconds.json").write_text(json.dumps(time.monotonic() - started))
        structures = glassjax.read_structures(folder / "ensemble.extxyz")
        seconds = json.loads((folder / "seconds.json").read_text())
        rows = [describe(s) for s in structures]
        if data is not None:
            spectra = [self.spectrum([s]) for s in structures]
            for row, one in zip(rows, spectra, strict=True):
                row["r_factor"] = float(np.linalg.norm(one - data) / np.linalg.norm(data))
        entry = dict(name=name, settings=settings, seconds=seconds, summary=summarise(rows), rows=rows)
        print(f"{name:28} {seconds:6.0f} s  " + "  ".join(f"{k} {v['mean']:.4f}" for k, v in entry["summary"].items()), flush=True)
        return structures, entry

    def number_density(self, atoms: int, density: float | None) -> float:
        """Atoms per A^3; of the diamond cell where no density is given."""
        return float(glassjax.number_density(self.diamond)) if density is None else glassjax.check_density(["C"] * atoms, mass_density=density)

    def kept(self) -> dict:
        """What the results file holds now: another process may have added to it."""
        return json.loads(self.results.read_text()) if self.results.exists() else {}

    def save(self, part: str, found: dict) -> None:
        """Write the results of a part, keeping those of the others."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        self.record = self.kept() | dict(settings=self.record["settings"], glassjax=glassjax.__version__, **{part: found})
        self.results.write_text(json.dumps(self.record, indent=1, default=float) + "\n")


def unconditional(runs: Runs) -> dict:
    """(a) the prior alone."""
    runs_found, curves = [], {}
    for density in (1.5, 2.5, 3.5):
        same = np.abs(runs.densities - density) < 0.1
        cells = [glassjax.from_atoms(atoms) for atoms, chosen in zip(runs.cells, same, strict=True) if chosen]
        pairs = glassjax.pair_distribution(RADII, ["C"], width=0.15)
        expected = dict(g=np.mean([curve(pairs, c) for c in cells], axis=0), spectrum=runs.spectra[same].mean(axis=(0, 1)))
        reference = summarise([describe(c) for c in cells])
        for atoms, replicas in ((216, 8), (432 if runs.short else LARGE, 1))[: 2 if density in runs.large else 1]:
            structures, entry = runs.sample(f"a {density} {atoms}", replicas=replicas, plan=PLAIN, atoms=atoms, density=density)
            made = dict(g=np.mean([curve(pairs, s) for s in structures], axis=0), spectrum=runs.spectrum(structures))
            entry |= dict(
                reference=reference,
                mean_abs_dg=float(np.abs(made["g"] - expected["g"]).mean()),
                spectrum_r_factor=float(np.linalg.norm(made["spectrum"] - expected["spectrum"]) / np.linalg.norm(expected["spectrum"])),
            )
            runs_found.append(entry)
            curves[f"{density} {atoms}"] = made
        curves[f"{density} data"] = expected
    return dict(runs=runs_found, r=RADII.tolist(), curves={k: {n: np.round(y, 5).tolist() for n, y in v.items()} for k, v in curves.items()})


def steered(runs: Runs) -> dict:
    """(b) two-fold and four-fold spectra at 2.0 g/cm3; moves of the fractions in standard errors of the difference."""
    goals = dict(prior=None, two=runs.spectra[runs.numbers == 2].mean(axis=0), four=runs.spectra[runs.numbers == 4].mean(axis=0))
    entries, spectra = {}, {}
    for name, data in goals.items():
        structures, entries[name] = runs.sample(f"b {name}", data, replicas=16, plan=GUIDED, density=2.0)
        spectra[name] = dict(made=np.round(runs.spectrum(structures), 5).tolist(), target=None if data is None else np.round(data, 5).tolist())
    moves = {}
    for name in ("two", "four"):
        for key in ("fold_2", "fold_4"):
            after, before = entries[name]["summary"][key], entries["prior"]["summary"][key]
            move = after["mean"] - before["mean"]
            error = float(np.hypot(after["standard_error"], before["standard_error"]))
            moves[f"{name} {key}"] = dict(move=move, standard_errors=move / max(error, 1e-9))
            print(f"    {name}: {key} moves by {move:+.3f}, {move / max(error, 1e-9):+.1f} standard errors")
    return dict(runs=list(entries.values()), moves=moves, spectra=spectra)


def perturbed_diamond(runs: Runs) -> dict:
    """(c) from diamond: the prior alone, and guided by an amorphous spectrum with growing strength."""
    chosen = [atoms.info["name"] for atoms in runs.cells].index(HELD_OUT)
    data = runs.spectra[chosen].mean(axis=0)
    reference = describe(glassjax.from_atoms(runs.cells[chosen]))
    found = {}
    for name, level in SHAKEN.items():
        plan = FROM_CRYSTAL | dict(sigma_max=float(level))
        found[name] = [runs.sample(f"c {name} prior", replicas=4, plan=plan, init=runs.diamond)[1]]
        for strength in STRENGTHS[name]:
            guided = runs.sample(f"c {name} {strength:g}", data, replicas=4, plan=plan, init=runs.diamond, strength=strength)
            found[name].append(guided[1])
    for name, strengths in FAR.items():
        one = runs.spectra[[atoms.info["name"] for atoms in runs.cells].index(name)].mean(axis=0)
        found[f"far {name}"] = far = [runs.sample("c far prior", replicas=4, plan=plan_far(), init=runs.diamond)[1]]
        options = dict(replicas=4, plan=plan_far(), init=runs.diamond, move=FAR_MOVE)
        far += [runs.sample(f"c far {name} {strength:g}", one, strength=strength, **options)[1] for strength in strengths]
    spectra = dict(target=np.round(data, 5).tolist(), diamond=np.round(runs.spectrum([runs.diamond]), 5).tolist())
    return dict(runs=found, reference=reference, spectra=spectra)


def restarts(runs: Runs) -> dict:
    """(d) singly bonded carbon after each cycle of re-noising and denoising."""
    two = runs.spectra[runs.numbers == 2].mean(axis=0)
    found = {}
    for name, data, density, plan, first, cycles in (
        ("prior", None, 1.5, CYCLE, QUICK, CYCLES),
        ("two", two, 2.0, GUIDED_CYCLE, None, GUIDED_CYCLES),
    ):
        begin = f"d {name} 0" if first else "b two"
        structures, entry = runs.sample(begin, data, replicas=16, plan=first or GUIDED, density=density)
        found[name] = [entry]
        for cycle in range(1, (1 if runs.short else cycles) + 1):
            structures, entry = runs.sample(f"d {name} {cycle}", data, replicas=16, plan=plan, density=density, init=structures, seed=cycle)
            found[name].append(entry)
    return dict(runs=found)


def plan_far() -> dict:
    """Protocol of the runs whose atoms may move farther."""
    return dict(steps=30, corrections=1, sigma_max=float(SHAKEN["length"]))


PARTS = dict(a=unconditional, b=steered, c=perturbed_diamond, d=restarts)
LARGE = 2000  # atoms
PLAIN = dict(steps=150, corrections=2)
GUIDED = dict(steps=60, corrections=1)
FROM_CRYSTAL = dict(steps=60, corrections=3)
STRENGTHS = dict(length=(0.1, 1.0, 10.0), component=())
FAR = {"d2.5_3": (0.1, 1.0, 10.0), HELD_OUT: (10.0,)}  # cells kept out of the training, 2.5 and 3.5 g/cm3, and strengths
FAR_MOVE = 0.5  # A
QUICK = dict(steps=40, corrections=0)
CYCLE = dict(steps=30, corrections=1, sigma_max=RENOISE)
GUIDED_CYCLE = dict(steps=15, corrections=0, sigma_max=RENOISE)
CYCLES, GUIDED_CYCLES = 10, 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--prior", default="carbon", help="shipped name or file")
    parser.add_argument("--surrogate", default="carbon-xanes", help="shipped name or file")
    parser.add_argument("--data", default=HERE.parents[1] / "shared" / "data" / "carbon")
    parser.add_argument("--out", default="carbon_runs", help="folder of the runs")
    parser.add_argument("--results", default=HERE / "results" / "carbon.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=4, help="replicas per compiled call")
    parser.add_argument("--fresh", action="store_true", help="forget the parts that the results file holds")
    parser.add_argument("--large", type=float, nargs="*", default=[1.5, 2.5, 3.5], help="densities of part (a) at which 2000 atoms are sampled too")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    runs = Runs(arguments)
    for part in arguments.parts:
        runs.save(part, PARTS[part](runs))


if __name__ == "__main__":
    main()
