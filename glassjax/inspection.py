"""Commands that look at files and convert them: identify, spectra, convert."""

from __future__ import annotations

import numpy as np

from glassjax.commands import output_file


def spectra(options) -> int:
    """Curves of structures: one pair pass per frame for every function and partial that was asked for."""
    from glassjax.absorption_targets import ABSORPTION
    from glassjax.archive import write_whole
    from glassjax.io.atoms import read_structures
    from glassjax.measurements import unique_name
    from glassjax.plots import AXES, plot_spectra, png
    from glassjax.preparation import check_reach
    from glassjax.spectra import compute_spectra
    from glassjax.structure import number_density

    out = output_file(options.out, None)
    if out.suffix.lower() == ".png":
        raise ValueError(f"got {out} as --out; needs a CSV file; the picture goes beside it")
    frames = read_structures(options.structures)
    symbols = frames[0].symbols
    for index, frame in enumerate(frames):
        if any(frame.symbols.count(e) * len(symbols) != symbols.count(e) * len(frame.symbols) for e in frame.elements):
            raise ValueError(f"got frame {index} of another composition than frame 0; needs one composition; compute them one by one")
    fractions = {e: symbols.count(e) / len(symbols) for e in frames[0].elements}
    density = float(np.mean([number_density(frame) for frame in frames]))
    made = []
    for function in options.function:
        made += _absorption(function, fractions, density, options) if function in ABSORPTION else _observables(function, fractions, options)
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


def _absorption(function: str, fractions: dict, density: float, options) -> list[tuple]:
    """(label, function, x, observable) of one absorption curve per edge."""
    from glassjax.observables.exafs import exafs
    from glassjax.observables.multiple_scattering import multiple_scattering
    from glassjax.surrogates.observable import spectrum
    from glassjax.surrogates.surrogate import load_surrogate

    if function == "mu(E)":
        if options.surrogate is None:
            raise ValueError("got mu(E) without a surrogate; needs the network that predicts it; pass --surrogate")
        one = spectrum(load_surrogate(options.surrogate), elements=tuple(fractions))
        return [(f"mu {one.surrogate.absorber}_{one.surrogate.edge}", function, np.asarray(one.x), one)]
    if not options.edge:
        raise ValueError(f"got {function} without an edge; needs absorber and edge; pass --edge, such as Si:K")
    made = []
    for edge in options.edge:
        common = dict(edge=edge, number_density=density, table=options.scattering, rmax=options.rmax)
        if function == "chi(R)" and options.multiple:
            raise ValueError("got --multiple with chi(R); needs chi(k); leave one out")
        if function == "chi(R)":
            x = np.linspace(0.5, 5.0, 200 if options.points is None else options.points)
            window = dict(kmin=options.kmin, kmax=options.kmax, kweight=options.kweight, dk=1.0, window="hanning")
            one = exafs(x, fractions, transform=window, **common)
        else:
            x = np.arange(options.kmin, options.kmax + 1e-6, 0.05)
            one = (multiple_scattering if options.multiple else exafs)(x, fractions, kweight=options.kweight, **common)
        made.append((f"{'chi' if function == 'chi(k)' else 'chiR'} {edge.replace(':', '_')}", function, np.asarray(one.x), one))
    return made


def _observables(function: str, fractions: dict, options) -> list[tuple]:
    """(label, function, x, observable) of one function: the total, or with --partials every pair, or every triplet of an ADF."""
    import itertools

    from glassjax.analysis.local import bond_cutoffs
    from glassjax.observables import pair_distribution, structure_factor
    from glassjax.observables.angle import angle_distribution
    from glassjax.observables.coordination import coordination_distribution
    from glassjax.observables.pair import REAL_SPACE, RECIPROCAL

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
    scaled = function in ("G_keen", "D", "T", "F_keen", "I")
    if pairs is None and (len(elements) > 1 or scaled) and options.weights is None and function not in ("S_NN", "S_NC", "S_CC"):
        raise ValueError(f"got {function} of {', '.join(elements)} without weights; needs --weights number, neutron, xray or Z")
    weights = "number" if options.weights is None else options.weights
    isotopes = dict(options.isotopes) if options.isotopes and weights == "neutron" and pairs is None else None
    if function in REAL_SPACE:
        x = np.linspace(options.rmin, 8.0 if options.rmax is None else options.rmax, 100 if options.points is None else options.points)
        settings = dict(width=options.width, termination=options.termination, qdamp=options.qdamp, qbroad=options.qbroad)
        settings["qmax"] = options.qmax if options.termination or weights == "xray" else None
        make = pair_distribution
    else:
        x = np.linspace(options.qmin, 20.0 if options.qmax is None else options.qmax, 391 if options.points is None else options.points)
        settings = dict(rmax=10.0 if options.rmax is None else options.rmax, window=options.window, qdamp=options.qdamp)
        settings |= dict(displacement=options.displacement) if function in RECIPROCAL else {}
        make = structure_factor
    if pairs is None or function in ("S_NN", "S_NC", "S_CC"):
        return [(function, function, x, make(x, fractions, function=function, weights=weights, isotopes=isotopes, **settings))]
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
    """Artefacts of the file; none where the floor of its function needs a composition or a density that was not given."""
    from glassjax.conversions import mean_square_of

    scaled = found.function in ("G_keen", "D", "T")
    if (scaled and options.composition is None) or (found.function in ("G", "D", "T", "RDF") and options.number_density is None):
        return []
    square = float(mean_square_of(options.composition, "neutron")) if scaled else None
    return find(measured.x, measured.y, found.function, number_density=options.number_density, mean_square=square)


def convert(options) -> int:
    """Structures from one file format to another."""
    from glassjax.io.atoms import read_structures
    from glassjax.io.writers import write_structures

    written = write_structures(options.out, read_structures(options.structures))
    print(f"written: {', '.join(map(str, written))}")
    return 0
