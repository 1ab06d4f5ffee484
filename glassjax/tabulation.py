"""Scattering tables of a material from its structures: FEFF8L on a sample of sites, then `scattering_tables.fit_table`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from glassjax._pytree import replace
from glassjax.feff import FeffError, LabelSettings, find_feff, run_site
from glassjax.scattering_fit import fit_table
from glassjax.scattering_tables import ScatteringTable
from glassjax.structure import Structure, number_density


def tabulate(
    structures: Sequence[Structure],
    absorber: str,
    edge: str = "K",
    *,
    sites: int = 48,
    reach: float = 6.0,
    reach_multiple: float = 5.0,
    multiple_sites: int | None = None,
    strain: float = 0.03,
    feff=None,
    workers: int | None = None,
    report: Callable | None = None,
) -> ScatteringTable:
    """Tables of one absorber and edge from FEFF8L runs on ``sites`` sites, spread over the structures as they are and scaled by +-``strain``.

    Args:
      structures: like those to be modelled; several densities or compositions widen what the table holds.
      absorber: element.
      edge: "K", ...
      sites: single scattering runs.
      reach: A, half length of single paths.
      reach_multiple: A, half length of paths of three and four legs; 0 for none.
      multiple_sites: runs with multiple scattering, by default half as many.
      strain: of all lengths, so that a table from cells of one density follows the density.
      feff: from `find_feff`.
      workers: FEFF runs at a time.
      report: called with (done, total).

    Raises:
      ValueError: no structure holds the absorber.
      FileNotFoundError: no FEFF.
      FeffError: more than a tenth of the runs failed.
    """
    feff = find_feff() if feff is None else feff
    chosen = _choose([s for s in structures if absorber in s.symbols], absorber, sites, strain)
    if not chosen:
        raise ValueError(f"got {len(structures)} structures without {absorber}; needs some with the absorber; check the edge")
    elements = sorted({element for s in structures for element in s.elements})
    single = LabelSettings(element=absorber, edge=edge, reach=reach, legs=2)
    several = LabelSettings(element=absorber, edge=edge, reach=reach_multiple, legs=4) if reach_multiple else None
    extra = 0 if several is None else (len(chosen) // 2 if multiple_sites is None else multiple_sites)
    jobs = [(s, site, whole, single) for s, site, whole in chosen]
    jobs += [(*chosen[i], several) for i in np.unique(np.linspace(0, len(chosen) - 1, extra).astype(int))] if extra else []

    def run(job):
        structure, site, _, settings = job
        try:
            return run_site(feff, structure, site, settings, paths=True)
        except FeffError as error:
            return error

    found = []
    with ThreadPoolExecutor(os.cpu_count() if workers is None else workers) as pool:
        for result in pool.map(run, jobs):
            found.append(result)
            if report:
                report(len(found), len(jobs))
    failed = [f for f in found if isinstance(f, FeffError)]
    if len(failed) > 0.1 * len(jobs):
        raise FeffError(f"FEFF failed on {len(failed)} of {len(jobs)} sites, first: {failed[0]}")
    runs = []
    for (structure, _, whole, settings), result in zip(jobs, found, strict=True):
        if not isinstance(result, FeffError):
            paths = result.paths if settings is single else [p for p in result.paths if p.legs > 2]
            runs.append((float(number_density(structure)), paths, settings is single and whole))
    card = dict(feff=f"{feff.name} {feff.version}", structures=len(structures), sites=len(chosen), multiple_sites=extra, strain=strain)
    card |= dict(failed=len(failed), densities=sorted({round(density, 4) for density, *_ in runs}), settings=dataclasses.asdict(single))
    return fit_table(runs, absorber=absorber, edge=edge, elements=elements, reach=reach, reach_multiple=reach_multiple, card=card)


def _choose(structures, absorber, sites, strain):
    """(structure, site, whether not scaled) spread evenly over the structures and their scaled copies."""
    if not structures:
        return []
    factors = (1.0, 1.0 + strain, 1.0 - strain) if strain else (1.0,)
    copies = [replace(s, positions=s.positions * f, cell=s.cell * f) for f in factors for s in structures]
    per = max(1, round(sites / len(copies)))
    chosen = []
    for turn, one in enumerate(copies):
        own = np.flatnonzero([symbol == absorber for symbol in one.symbols])
        picked = own[(np.linspace(0, len(own), per, endpoint=False) + turn % max(1, len(own) // per)).astype(int) % len(own)]
        chosen += [(one, int(site), turn < len(structures)) for site in np.unique(picked)]
    return chosen


def exafs_table(options) -> int:
    """The command: tables of every edge asked for, one file each in ``--out``."""
    from glassjax.commands import Progress
    from glassjax.io.atoms import read_structures
    from glassjax.observables.exafs import parse_edge
    from glassjax.scattering_tables import save_table

    structures = read_structures(options.structures, None)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    feff, progress = find_feff(options.feff), Progress()
    for text in options.edge:
        absorber, edge = parse_edge(text)

        def report(done, total, text=text):
            progress.line(f"{100 * done / total:3.0f} %   {text}: {done} of {total} FEFF runs", done=done == total)

        table = tabulate(
            structures,
            absorber,
            edge,
            sites=options.sites,
            reach=options.reach,
            reach_multiple=options.reach_multiple,
            strain=options.strain,
            feff=feff,
            workers=options.workers,
            report=report,
        )
        path = folder / f"exafs_{'-'.join(table.elements)}_{absorber}_{edge}.npz"
        save_table(table, path)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, single scattering to {table.reach:g} A, multiple to {table.reach_multiple:g} A")
    return 0
