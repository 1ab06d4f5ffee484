"""What ``glassjax train-surrogate`` does."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np


def train_surrogate(options) -> int:
    """Train a surrogate on cells and their site spectra, judge it on the cells held out, and write both to its file."""
    from glassjax._pytree import replace
    from glassjax.archive import file_record
    from glassjax.io.atoms import from_atoms
    from glassjax.surrogates.evaluation import evaluate
    from glassjax.surrogates.surrogate import save_surrogate
    from glassjax.surrogates.training import SurrogateOptions, default_network
    from glassjax.surrogates.training import train_surrogate as train

    out = _output(options)
    frames, labels, x = _read(options)
    elements = tuple(options.elements) if options.elements else tuple(dict.fromkeys(symbol for a in frames for symbol in a.get_chemical_symbols()))
    absorber = elements[0] if options.absorber is None else options.absorber
    structures = [from_atoms(a, elements) for a in frames]
    held = held_out(frames, options.hold_out)
    kept = [i for i in range(len(frames)) if i not in held]
    files = [*options.structures, options.labels]
    record = dict(
        files=[file_record(f) for f in files],
        array=options.array,
        held_out=[frames[i].info.get("name", i) for i in held],
        note=options.note,
        kweight=options.kweight,
    )
    settings = {f.name: getattr(options, f.name) for f in dataclasses.fields(SurrogateOptions) if getattr(options, f.name, None) is not None}

    def report(step, seconds, losses):
        values = ", ".join("-" if v is None else f"{v:.3f}" for v in losses.values())
        print(f"{seconds:.0f} s   step {step}   loss by noise band {values}", file=sys.stderr, flush=True)

    surrogate = train(
        [structures[i] for i in kept],
        [labels[i] for i in kept],
        out=out,
        elements=elements,
        absorber=absorber,
        network=default_network(elements, options.network, options.cutoff),
        kind=options.kind,
        edge=options.edge,
        x=x,
        unit=options.unit,
        options=SurrogateOptions(**settings),
        resume=options.resume,
        record=record,
        report=report,
    )
    card = json.loads(surrogate.card)
    if held:
        card["held_out_errors"] = evaluate(surrogate, [structures[i] for i in held], [labels[i] for i in held])
        print(json.dumps(card["held_out_errors"], indent=1))
    save_surrogate(replace(surrogate, card=json.dumps(card)), out)
    print(f"surrogate in {out}, learning curve in {out.with_suffix('.csv')}")
    return 0


def held_out(frames, wanted) -> list[int]:
    """Indices of the frames named by ``info['name']`` or by index; raises ``ValueError`` for one that is not there."""
    names = {str(a.info["name"]): i for i, a in enumerate(frames) if "name" in a.info}
    found = []
    for name in [] if wanted is None else wanted:
        index = names.get(str(name), int(name) if str(name).isdigit() else -1)
        if not 0 <= index < len(frames):
            raise ValueError(f"got {name!r} to hold out; needs the info name of a frame or an index below {len(frames)}; names: {', '.join(names)}")
        found.append(index)
    return sorted(set(found))


def _read(options):
    """(frames, labels of each [n, points], x [points] or None)."""
    from ase.io import read

    for file in [*options.structures, options.labels]:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file}: got no such file; needs structures that ASE reads and an .npz of spectra; check the path")
    frames = [a for file in options.structures for a in read(file, index=":")]
    with np.load(options.labels, allow_pickle=False) as archive:
        if options.array is None and {"__header__", "curves"} <= set(archive.files):
            return frames, *_from_feff(options, frames)
        if options.array not in archive.files:
            raise ValueError(f"{options.labels}: got arrays {', '.join(archive.files)}; needs {options.array!r}; pass --array NAME")
        labels = archive[options.array]
        x = archive["x"] if "x" in archive.files else None
    if labels.ndim != 3 or len(labels) != len(frames):
        raise ValueError(f"{options.labels}: got spectra of shape {labels.shape}; needs [{len(frames)} frames, atoms, points]")
    most = labels.shape[1]
    if any(len(a) > most for a in frames):
        raise ValueError(f"{options.labels}: got spectra of {most} atoms per frame; needs as many rows as the largest frame has atoms")
    return frames, [labels[i, : len(a)] for i, a in enumerate(frames)], x


def _from_feff(options, frames):
    """(labels of each frame [n, points], x [points]) from a file of `glassjax label`, which also gives absorber, edge, kind and unit."""
    from glassjax.labelling import load_labels

    found = load_labels(options.labels)
    if len(found.sites) != len(frames):
        raise ValueError(
            f"{options.labels}: got labels of {len(found.sites)} frames; needs those of the {len(frames)} frames given; pass the same files"
        )
    if found.failures:
        frame, site, message = found.failures[0]
        raise ValueError(
            f"{options.labels}: got {len(found.failures)} sites on which FEFF failed, first site {site} of frame {frame} ({message}); "
            "needs all of them; label again, or leave those frames out"
        )
    asked, exafs = found.settings, found.settings.kind == "exafs"
    options.absorber, options.edge, options.kind, options.unit = asked.element, asked.edge, asked.kind, "1/A" if exafs else "eV"
    x, curves = (found.k, found.chi) if exafs else (found.energy, found.mu)
    labels = []
    for atoms, sites, rows in zip(frames, found.sites, curves, strict=True):
        labels.append(np.zeros((len(atoms), len(x)), np.float32))
        labels[-1][sites] = rows
    return labels, x


def _output(options) -> Path:
    """The file to write; raises ``ValueError`` where it is there already or would resume nothing."""
    path = Path(options.out)
    if path.suffix != ".npz":
        raise ValueError(f"got {path} as --out; needs a name that ends in .npz; rename it")
    state = path.with_suffix(".train.npz")
    if options.resume and path.exists() and not state.exists():
        raise ValueError(f"{path} is there but {state} is not, so its training cannot continue; pass another --out")
    if not options.resume and (path.exists() or state.exists()):
        raise ValueError(f"{path} is already there; needs a new name: pass --resume to continue that training, or another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def add_arguments(parser) -> None:
    """Arguments of the command."""
    parser.add_argument("structures", nargs="+", help="structure files")
    parser.add_argument("--labels", required=True, help="from `glassjax label`, or an .npz with site spectra [frames, atoms, points], and x")
    parser.add_argument("--array", help="name of the array of spectra in an .npz that `glassjax label` did not write")
    parser.add_argument("--out", required=True, help="file to write, .npz")
    parser.add_argument("--hold-out", dest="hold_out", nargs="*", help="frames never trained on, by info name or index; the card has their errors")
    parser.add_argument("--network", choices=("invariant", "specnet"), default="invariant")
    parser.add_argument("--cutoff", type=float, default=4.0, help="A (default: 4)")
    parser.add_argument("--kind", choices=("xanes", "exafs"), default="xanes")
    parser.add_argument("--elements", nargs="+", help="order of the elements")
    parser.add_argument("--absorber", help="absorbing element (default: the first)")
    parser.add_argument("--edge", default="K")
    parser.add_argument("--unit", default="index", help="of x: eV, 1/A or index")
    parser.add_argument("--kweight", type=float, default=0.0, help="power w of EXAFS spectra given as k^w chi(k)")
    parser.add_argument("--note", default="", help="where the spectra come from, for the card")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--members", type=int)
    parser.add_argument("--folds", type=int, help="member m leaves every so-manieth cell out (default: 5)")
    parser.add_argument("--sigma-max", dest="sigma_max", type=float, help="A, largest noise level (default: 0.8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
