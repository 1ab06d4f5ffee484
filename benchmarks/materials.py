"""The benchmark over five materials.

    python benchmarks/materials.py densities               measure the densities of the metals (20 minutes; only to check VOLUMES)
    python benchmarks/materials.py reference               make the reference cells (a day of one core; resumable, several processes may share it)
    python benchmarks/materials.py status                  which cells there are, and what they cost
    python benchmarks/materials.py pack                    write benchmarks/data/reference_MATERIAL.extxyz.gz
    python benchmarks/materials.py train [--minutes 15]    train the priors, each on cells of one condition; resumable
    python benchmarks/materials.py table [--methods ...]   make the ensembles and their metrics: benchmarks/results/materials.json; resumable
    python benchmarks/materials.py short                   in minutes: two replicas of each material where its prior was trained, 60 levels
    python benchmarks/materials.py figures                 heat maps, spectra and the verdicts
    python benchmarks/materials.py check                   compare the packed cells with what is known

Needs the extra [md] for the first two. ``glassjax melt-quench FORMULA --density D --published --rate R --seed S`` makes one such cell.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import materials_reference as reference

STATE = Path(__file__).resolve().parents[2] / "run" / "reference"
RESULTS = Path(__file__).parent / "results" / "materials.json"
ENSEMBLES = Path(__file__).parent / "ensembles"
DOCUMENTS = Path(__file__).parent / "RESULTS.md", Path(__file__).parents[1] / "README.md"
SHORT = Path(__file__).resolve().parents[2] / "run" / "short"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def make_densities(options) -> int:
    """Measure the densities of the metals and fit their volumes."""
    import materials_densities

    return materials_densities.main(options.state, options.only)


def make_reference(options) -> int:
    """Make the cells that are not there yet, until the time is up; a cell that was begun is finished. Begins with the packed ones."""
    import materials_pack

    started = time.monotonic()
    materials_pack.unpack(options.state, options.only)
    while True:
        if options.minutes is not None and time.monotonic() - started > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over; the same command goes on from here", flush=True)
            return 0
        # from the top each time: a cell that another process began and lost is taken up again
        for condition, replica in reference.cells(options.only):
            seconds = reference.make(condition, replica, options.state)
            if seconds is not None:
                print(f"{condition.material} {condition.label} replica {replica}: {seconds:.0f} s of CPU", flush=True)
                break
        else:
            return 0


def show_status(options) -> int:
    """Which cells there are, and what they cost."""
    import materials_pack

    return materials_pack.status(options.state, options.only)


def pack(options) -> int:
    """Write the cells into benchmarks/data; conditions with fewer than four replicas are named and do not count yet."""
    import materials_pack

    return materials_pack.pack(options.state, options.only)


def train(options) -> int:
    """Train the prior of each material, and of all together (joint), from the packed training cells until it has had --minutes."""
    import materials_priors

    names = list(reference.MATERIALS) + [materials_priors.JOINT] if options.only is None else options.only
    wrong = [name for name in names if name != materials_priors.JOINT and name not in reference.MATERIALS]
    if wrong:
        raise ValueError(f"got {', '.join(wrong)}; needs some of {', '.join(reference.MATERIALS)}, {materials_priors.JOINT}; correct the names")
    places = dict(folder=options.folder or materials_priors.PRIORS, work=options.work or materials_priors.WORK)
    return materials_priors.train(names, options.minutes, batch=options.batch, fresh=options.fresh, **places)


def table(options) -> int:
    """Make what is missing of the table from the packed cells and the priors."""
    import materials_ensembles
    import materials_priors
    import materials_table

    def prior_of(material, method):
        if method == "published":
            return str(options.meshgraphnet or materials_priors.published_file(material))
        if options.prior and method not in materials_ensembles.JOINT:
            return options.prior
        return str(materials_priors.prior_file(materials_priors.JOINT if method in materials_ensembles.JOINT else material))

    names, limits = options.only or list(reference.MATERIALS), dict(seconds=options.seconds, moves=options.moves)
    reference.conditions(names)
    lacking = [name for name in names if "published" in options.methods and not Path(prior_of(name, "published")).exists()]
    if lacking:
        raise ValueError(
            f"got no {', '.join(prior_of(name, 'published') for name in lacking)} for the method published; needs a prior with the paper's network; "
            "train one with `glassjax train --network meshgraphnet`, and pass --meshgraphnet FILE"
        )
    needed = {prior_of(name, method) for name in names for method in options.methods if method in materials_ensembles.RULED}
    absent = [path for path in needed if path.endswith(".npz") and not Path(path).exists()]
    if absent:
        raise ValueError(f"got no {', '.join(sorted(absent))}; needs that prior; run `python benchmarks/materials.py train`, or leave the method out")
    common = dict(out=options.ensembles, results=options.results, replicas=options.replicas, labels=options.conditions, steps=options.steps)
    return materials_table.run(names, options.methods, prior_of=prior_of, every=options.every, fluctuate=not options.one_curve, **common, **limits)


def short(options) -> int:
    """The prior alone and guided by g(r) where each prior was trained: two replicas of 60 levels, kept apart from the table."""
    import json

    import materials_ensembles
    import materials_figures
    import materials_priors
    import materials_summary
    import materials_table

    def prior_of(material, method):
        return str(materials_priors.prior_file(material))

    names, status = options.only or list(reference.MATERIALS), 0
    reference.conditions(names)
    for name in names:
        common = dict(out=options.ensembles, results=options.results, prior_of=prior_of, labels=[reference.TRAINED_AT[name]])
        status = max(status, materials_table.run([name], ["prior", "g"], replicas=2, steps=60, **common))
    if options.results.exists():
        made = json.loads(options.results.read_text())
        print(materials_summary.summaries(made))
        materials_figures.keep(materials_figures.method_maps(made, materials_ensembles.METHODS), options.results.with_suffix(".png"))
    return status


def figures(options) -> int:
    """Print the verdicts and draw the heat maps; of the repository's own results, renew the tables in README.md and RESULTS.md."""
    import materials_ensembles
    import materials_figures
    import materials_summary

    status = materials_figures.draw(options.results, materials_ensembles.METHODS, options.results.with_suffix(".png"), options.ensembles)
    if options.results.resolve() == RESULTS.resolve() and status == 0:
        for document in DOCUMENTS:
            document.write_text(materials_summary.show_in(document.read_text(), RESULTS.with_suffix(".md").read_text()))
    return status


def check(options) -> int:
    """Compare the cells with what is known about the materials."""
    import materials_check

    return materials_check.main(options.state, options.only, options.data)


def _table_options(part) -> None:
    import materials_ensembles

    part.add_argument("--methods", nargs="+", default=["prior", "g"], choices=materials_ensembles.METHODS, help="by default %(default)s")
    part.add_argument("--conditions", nargs="+", metavar="LABEL", help="some of those that `status` names")
    part.add_argument("--replicas", type=int, default=10, help="structures of every ensemble, by default %(default)s")
    part.add_argument("--prior", help="use this prior, a name or a file")
    part.add_argument("--meshgraphnet", help="prior of the method published, by default benchmarks/priors/meshgraphnet_MATERIAL.npz")
    part.add_argument("--steps", type=int, help="of the ladder, by default the protocol's")
    part.add_argument("--seconds", type=float, help="of each reverse Monte Carlo, by default ten times those of a structure guided by g(r)")
    part.add_argument("--moves", type=int, help="at least so many moves of each reverse Monte Carlo")
    part.add_argument("--one-curve", action="store_true", help="guide all replicas by the same curve, without fluctuations of their own")
    part.add_argument("--every", action="store_true", help="compare rings and Voronoi indices too")


def main(arguments=None) -> int:
    """Parse the command line and run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    known = {"densities": make_densities, "reference": make_reference, "status": show_status, "pack": pack, "train": train}
    known |= {"table": table, "short": short, "figures": figures, "check": check}
    for name, function in known.items():
        part = parts.add_parser(name, help=function.__doc__)
        part.add_argument("--state", type=Path, default=STATE, help="folder of the unpacked cells, by default %(default)s")
        part.add_argument("--only", nargs="+", metavar="MATERIAL", help=f"some of {', '.join(reference.MATERIALS)}")
        part.set_defaults(run=function)
        if name == "reference":
            part.add_argument("--minutes", type=float, help="begin no cell after this time")
        if name == "train":
            part.add_argument(
                "--minutes", type=float, default=15.0, help="wall time of each, all sessions on this machine together, by default %(default)s"
            )
            part.add_argument("--batch", type=int, help="cells per step (more on a GPU); by default 2 or 4")
            part.add_argument("--folder", type=Path, help="of the priors, by default benchmarks/priors")
            part.add_argument("--fresh", action="store_true", help="begin as the first training did, not from the committed parameters")
            part.add_argument("--work", type=Path, help="of the states of trainings, by default ../run/priors")
        if name in ("table", "short", "figures"):
            results, made = (SHORT / "materials.json", SHORT) if name == "short" else (RESULTS, ENSEMBLES)
            part.add_argument("--results", type=Path, default=results, help="by default %(default)s")
            part.add_argument("--ensembles", type=Path, default=made, help="folder of what is made, by default %(default)s")
        if name == "table":
            _table_options(part)
        if name == "check":
            part.add_argument("--data", type=Path, default=SHARED, help="folder of the public data, by default %(default)s")
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"materials.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
