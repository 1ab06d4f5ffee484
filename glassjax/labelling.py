"""FEFF for every site of many structures: parallel, resumable, cached by content, with failures listed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from glassjax.archive import CorruptedArchive, read_arrays, write_arrays
from glassjax.feff import MOST_ATOMS, Feff, FeffError, LabelSettings, SiteResult, check_feff, find_feff, run_input, write_input
from glassjax.io.feff import COLUMNS, FeffPath
from glassjax.structure import Structure

FORMAT = 1  # of the cache's and the labels' files
STEP = 0.05  # of chi.dat in k, 1/A


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """Spectra of the sites of structures, from FEFF.

    Attributes:
      settings: what was computed.
      program: name and version of the FEFF.
      sites: [frames] of [sites] atom indices: all atoms of the settings' element, in their order.
      k: [m] 1/A from each site's own Fermi level, 0.05, 0.10, ... kmax; None for XANES.
      chi: [frames] of [sites, m], with S0^2 = 1 and no disorder; NaN rows where FEFF failed; None for XANES.
      energy: [m] eV, the grid of the first site where all sites have values; None for EXAFS.
      mu: [frames] of [sites, m], interpolated onto ``energy``; None for EXAFS.
      fermi_level: [frames] of [sites] eV from the vacuum.
      paths: [frames] of [sites] of lists of `FeffPath`, where asked for.
      failures: (frame, site, message) of each site that FEFF failed on.
      notes: (frame, site, FEFF's warning).
    """

    settings: LabelSettings
    program: str
    sites: list[np.ndarray]
    k: np.ndarray | None = None
    chi: list[np.ndarray] | None = None
    energy: np.ndarray | None = None
    mu: list[np.ndarray] | None = None
    fermi_level: list[np.ndarray] = dataclasses.field(default_factory=list)
    paths: list[list[list[FeffPath]]] | None = None
    failures: list[tuple[int, int, str]] = dataclasses.field(default_factory=list)
    notes: list[tuple[int, int, str]] = dataclasses.field(default_factory=list)


def label(
    structures: Structure | Sequence[Structure],
    settings: LabelSettings,
    *,
    out=None,
    feff: Feff | str | Path | None = None,
    workers: int | None = None,
    cache=None,
    paths: bool = False,
    report: Callable[[int, int, int], None] | None = None,
) -> Labels:
    """Run FEFF for every atom of the settings' element in every structure.

    Each site's result is kept in ``cache`` under a digest of its feff.inp and of the program, so equal sites run once, and a repeated or
    interrupted call continues. A site on which FEFF fails is listed in ``failures`` and is tried again by the next call.

    Args:
      structures: one or several.
      out: .npz to write, see `save_labels`.
      feff: a `Feff`, or what `find_feff` takes.
      workers: FEFFs at a time; by default the number of processors.
      cache: folder; by default ~/.cache/glassjax/feff (XDG_CACHE_HOME is respected).
      paths: keep the scattering paths too (EXAFS).
      report: called with the numbers of different sites done, of all, and of failures.

    Raises:
      FileNotFoundError: no FEFF.
      ValueError: a structure without that element, a site without a neighbour, a cluster too large, or options that do not fit.
      RuntimeError: FEFF failed on every site.
    """
    structures = [structures] if isinstance(structures, Structure) else list(structures)
    workers = os.cpu_count() if workers is None else workers
    if workers is None or workers < 1:
        raise ValueError(f"got {workers} workers; needs at least 1; leave it out for one per processor")
    if paths and settings.kind != "exafs":
        raise ValueError(f"got paths for {settings.kind}; needs exafs, of which FEFF writes paths; leave paths out")
    if out is not None and (Path(out).suffix != ".npz" or not Path(out).absolute().parent.is_dir()):
        raise ValueError(f"got {out} for the labels; needs a name that ends in .npz in a folder that exists; change it")
    feff = feff if isinstance(feff, Feff) else find_feff(feff)
    check_feff(feff, settings)
    sites = _sites(structures, settings)
    inputs = _inputs(structures, sites, settings, feff)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glassjax" / "feff" if cache is None else Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    results = _results(dict.fromkeys(inputs.values()), feff, settings, workers, folder, paths, report)
    labels = _collect(sites, inputs, results, feff, settings, paths)
    if out is not None:
        save_labels(out, labels)
    return labels


def _sites(structures: list[Structure], settings: LabelSettings) -> list[np.ndarray]:
    if not structures:
        raise ValueError("got no structure to label; needs at least one; pass some")
    sites = []
    for frame, one in enumerate(structures):
        if np.ndim(one.species) != 1:
            raise ValueError(f"got a batch as frame {frame}; needs single structures; unstack it first")
        known = one.elements.index(settings.element) if settings.element in one.elements else -2
        sites.append(np.flatnonzero(np.asarray(one.species) == known))
        if not len(sites[-1]):
            raise ValueError(f"got no {settings.element} in frame {frame} ({', '.join(one.elements)}); needs absorbers in each; leave that frame out")
    return sites


def _inputs(structures, sites, settings: LabelSettings, feff: Feff) -> dict[tuple[int, int], str]:
    """feff.inp of each (frame, site)."""
    inputs = {}
    for frame, one in enumerate(structures):
        for site in map(int, sites[frame]):
            try:
                text = write_input(one, site, settings)
            except ValueError as error:
                raise ValueError(f"frame {frame}: {error}") from error
            atoms = text.partition("ATOMS\n")[2].count("\n") - 1
            if feff.modular and atoms > MOST_ATOMS:
                raise ValueError(f"got {atoms} atoms around atom {site} of frame {frame}; {feff.name} needs at most {MOST_ATOMS}; lower the reach")
            inputs[frame, site] = text
    return inputs


def _results(texts, feff: Feff, settings: LabelSettings, workers: int, folder: Path, paths: bool, report) -> dict[str, SiteResult | str]:
    """Result, or message of failure, by feff.inp: from the cache, or run and added to it."""
    results, waiting = {}, []
    for text in texts:
        kept = _cached(folder / _key(feff, text), paths)
        if kept is None:
            waiting.append(text)
        else:
            results[text] = kept
    failed = 0

    def run(text):
        result = run_input(feff, text, settings, paths=paths)
        _keep(folder / _key(feff, text), result, feff, text)
        return result

    if report is not None:
        report(len(results), len(results) + len(waiting), failed)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        jobs = {pool.submit(run, text): text for text in waiting}
        try:
            for job in as_completed(jobs):
                try:
                    results[jobs[job]] = job.result()
                except FeffError as error:
                    results[jobs[job]] = str(error)
                    failed += 1
                if report is not None:
                    report(len(results), len(texts), failed)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _collect(sites, inputs, results, feff: Feff, settings: LabelSettings, paths: bool) -> Labels:
    """Labels from the results of the sites."""
    rows = [[results[inputs[frame, int(site)]] for site in own] for frame, own in enumerate(sites)]
    failures = [(f, int(i), r) for f, own in enumerate(sites) for i, r in zip(own, rows[f], strict=True) if isinstance(r, str)]
    good = [r for row in rows for r in row if not isinstance(r, str)]
    if not good:
        raise RuntimeError(f"FEFF failed on all {len(failures)} sites; the first (frame {failures[0][0]}, atom {failures[0][1]}): {failures[0][2]}")
    x, y = ("k", "chi") if settings.kind == "exafs" else ("energy", "mu")
    grid, start, end = getattr(good[0], x), max(getattr(r, x)[0] for r in good), min(getattr(r, x)[-1] for r in good)
    if x == "k":  # some of FEFF's curves begin at 0, some at one step
        start, end = max(start, STEP), min(end, settings.kmax)
    grid = grid[(grid >= start - 1e-6) & (grid <= end + 1e-6)]
    curves = [np.stack([np.full(len(grid), np.nan) if isinstance(r, str) else _on(grid, getattr(r, x), getattr(r, y)) for r in row]) for row in rows]
    return Labels(
        settings=settings,
        program=f"{feff.name} {feff.version}",
        sites=sites,
        **{x: grid, y: curves},
        fermi_level=[np.array([np.nan if isinstance(r, str) else r.fermi_level for r in row]) for row in rows],
        paths=[[[] if isinstance(r, str) else r.paths for r in row] for row in rows] if paths else None,
        failures=failures,
        notes=[(f, int(i), n) for f, own in enumerate(sites) for i, r in zip(own, rows[f], strict=True) if not isinstance(r, str) for n in r.notes],
    )


def _on(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y on another grid, by monotone cubic interpolation where the grids differ."""
    from scipy.interpolate import PchipInterpolator

    same = x[: len(grid)]
    return y[: len(grid)] if same.shape == grid.shape and np.allclose(same, grid, rtol=0, atol=1e-6) else PchipInterpolator(x, y)(grid)


def _key(feff: Feff, text: str) -> str:
    return hashlib.sha256(f"{FORMAT}\n{feff.name}\n{feff.version}\n{text}".encode()).hexdigest() + ".npz"


def _cached(path: Path, paths: bool) -> SiteResult | None:
    """The result in a file of the cache; None where there is none, it is broken, or it lacks the paths."""
    try:
        header, arrays = read_arrays(path)
    except (FileNotFoundError, CorruptedArchive):
        return None
    if paths and "path_numbers" not in arrays:
        return None
    curves = {name: arrays[name] for name in ("k", "chi", "energy", "mu") if name in arrays}
    return SiteResult(
        **curves, paths=_unpack(arrays) if paths else None, fermi_level=float(arrays["fermi_level"]), notes=tuple(header.get("notes", ()))
    )


def _keep(path: Path, result: SiteResult, feff: Feff, text: str) -> None:
    arrays = {name: getattr(result, name) for name in ("k", "chi", "energy", "mu") if getattr(result, name) is not None}
    arrays |= dict(fermi_level=np.array(result.fermi_level)) | ({} if result.paths is None else _pack(result.paths))
    own = path.with_name(f"{os.getpid()}-{path.name}")  # another process may write the same site
    write_arrays(own, dict(program=feff.name, version=feff.version, notes=list(result.notes), input=text), arrays)
    own.replace(path)


def _pack(paths: Sequence[FeffPath]) -> dict[str, np.ndarray]:
    """Paths as arrays, one behind the other."""
    return dict(
        path_numbers=np.array([[p.legs, p.degeneracy, p.reff, len(p.k)] for p in paths]).reshape(-1, 4),
        path_tables=np.concatenate([np.zeros((0, 7)), *[np.column_stack([getattr(p, name) for name in COLUMNS]) for p in paths]]),
        path_positions=np.concatenate([np.zeros((0, 3)), *[p.positions for p in paths]]),
        path_species=np.array([symbol for p in paths for symbol in p.species], dtype="<U2"),
    )


def _unpack(arrays: dict[str, np.ndarray]) -> list[FeffPath]:
    """The inverse of `_pack`."""
    paths, row, atom = [], 0, 0
    tables, positions, species = (arrays[f"path_{name}"] for name in ("tables", "positions", "species"))
    for legs, degeneracy, reff, points in arrays["path_numbers"]:
        legs, points = int(legs), int(points)
        columns = dict(zip(COLUMNS, tables[row : row + points].T, strict=True))
        atoms = dict(positions=positions[atom : atom + legs], species=[str(s) for s in species[atom : atom + legs]])
        paths.append(FeffPath(legs=legs, degeneracy=float(degeneracy), reff=float(reff), **atoms, **columns))
        row, atom = row + points, atom + legs
    return paths


def save_labels(path, labels: Labels) -> None:
    """Write `Labels` to one .npz; plain arrays ``sites``, ``frame`` and ``curves`` [all sites, m] over ``grid`` [m], beside a JSON header."""
    header = dict(format=FORMAT, labels=dataclasses.asdict(labels.settings), program=labels.program, failures=labels.failures, notes=labels.notes)
    grid, curves = (labels.k, labels.chi) if labels.energy is None else (labels.energy, labels.mu)
    arrays = dict(
        grid=grid,
        curves=np.concatenate(curves),
        sites=np.concatenate(labels.sites),
        frame=np.repeat(np.arange(len(labels.sites)), [len(own) for own in labels.sites]),
        fermi_level=np.concatenate(labels.fermi_level),
    )
    if labels.paths is not None:
        every = [paths for frame in labels.paths for paths in frame]
        arrays |= _pack([path for paths in every for path in paths]) | dict(paths_per_site=np.array([len(paths) for paths in every]))
    write_arrays(path, header, arrays)


def load_labels(path) -> Labels:
    """Read what `save_labels` wrote; raises ``FileNotFoundError``, or ``ValueError`` for another file."""
    try:
        header, arrays = read_arrays(path)
        settings = LabelSettings(**header["labels"])
        frame = arrays["frame"]
        split = np.flatnonzero(np.diff(frame)) + 1
        x, y = ("k", "chi") if settings.kind == "exafs" else ("energy", "mu")
        curves = {x: arrays["grid"], y: np.split(arrays["curves"], split)}
    except (CorruptedArchive, KeyError, TypeError) as error:
        raise ValueError(f"{path}: got a file that holds no labels ({error}); needs one from `glassjax label`; check the path") from error
    paths = None
    if "paths_per_site" in arrays:
        every, ends = _unpack(arrays), np.cumsum(arrays["paths_per_site"])
        own = [every[end - count : end] for end, count in zip(ends, arrays["paths_per_site"], strict=True)]
        starts = [0, *split.tolist(), len(own)]
        paths = [own[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return Labels(
        settings=settings,
        program=header["program"],
        sites=np.split(arrays["sites"], split),
        **curves,
        fermi_level=np.split(arrays["fermi_level"], split),
        paths=paths,
        failures=[tuple(entry) for entry in header["failures"]],
        notes=[tuple(entry) for entry in header["notes"]],
    )
