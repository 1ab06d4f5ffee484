"""What `glassjax label` does: spectra of the sites of structures, by FEFF."""

from __future__ import annotations

import sys
import time

import numpy as np

from glassjax.commands import Progress, clock, output_file

SHOWN = 10  # failures on the screen; the file of labels lists all


def label(options) -> int:
    """Run FEFF for every absorber of every frame; writes the labels (.npz) and their mean (.csv)."""
    from glassjax.archive import write_whole
    from glassjax.feff import LabelSettings, check_feff, find_feff
    from glassjax.io.atoms import read_structures
    from glassjax.labelling import label as run

    element, colon, edge = options.edge.partition(":")
    if not (element and colon and edge):
        raise ValueError(f"got --edge {options.edge}; needs an element and its edge; write it as Si:K")
    given = {name: getattr(options, name) for name in ("reach", "legs", "cluster", "kmax", "scf") if getattr(options, name) is not None}
    settings = LabelSettings(element=element, edge=edge, kind=options.kind, **given)
    feff = find_feff(options.feff)
    check_feff(feff, settings)
    out = output_file(f"{element}_{edge}_{options.kind}.npz" if options.out is None else options.out, ".npz")
    structures = read_structures(options.structures)
    progress, started, reused = Progress(), time.monotonic(), []

    def report(done, total, failed):
        if not reused:
            reused.append(done)
        spent, ran = time.monotonic() - started, done - reused[0]
        left = clock(spent / ran * (total - done)) if ran else "?"
        text = f"{100 * done / total:3.0f} %   {left} left   site {done} of {total}" + (f", {failed} failed" if failed else "")
        progress.line(text, done=done >= total)

    labels = run(structures, settings, out=out, feff=feff, workers=options.workers, cache=options.cache, paths=options.paths, report=report)
    x, curves, unit = (labels.k, labels.chi, "k in 1/A") if labels.energy is None else (labels.energy, labels.mu, "energy in eV")
    every = np.concatenate(curves)
    every = every[np.isfinite(every).all(axis=1)]
    head = f"# {element} {edge} {options.kind}, {len(every)} sites, {labels.program}; {unit}\nx,mean,deviation\n"
    rows = "\n".join(",".join(f"{value:.7g}" for value in row) for row in np.column_stack([x, every.mean(axis=0), every.std(axis=0)]))
    write_whole(out.with_suffix(".csv"), f"{head}{rows}\n".encode())
    for frame, site, message in labels.failures[:SHOWN]:
        print(f"frame {frame}, atom {site}: {message}", file=sys.stderr)
    if len(labels.failures) > SHOWN:
        print(f"and {len(labels.failures) - SHOWN} more; all are listed in {out}", file=sys.stderr)
    lost = f", {len(labels.failures)} failed" if labels.failures else ""
    print(f"{len(every)} sites in {len(structures)} frames{lost}; labels in {out}, their mean in {out.with_suffix('.csv')}")
    return 0
