"""Curves against independent codes: DebyeCalculator (finite clusters), PDFfit2 (crystals), freud and ASE (counts of pairs).

Nothing is rescaled, except that DebyeCalculator 1.1.1 sums every pair once, and half of each self term: I, S - 1, F and G come out at half (its dimer
gives 0.5), hence a factor 2 on its side. A peer that is not installed is skipped: `pip install glassjax[peers]`.
"""

import os

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.neighborlist import neighbor_list

from glassjax import structure as st
from glassjax._pytree import replace
from glassjax.elements import neutron_length, xray_form_factor
from glassjax.io.atoms import from_atoms
from glassjax.neighbors import neighbor_spec
from glassjax.observables import histogram, pair_distribution, structure_factor

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")

VACUUM = 4000.0  # A, edge of a cluster's cell: no image in range, and a mean density that leaves 1e-6 of any curve
B = 4 * np.pi**2 * 0.05**2  # A^2: exp(-Q^2 B / 8 pi^2) is a Gaussian of 0.05 A in r
UISO = 0.006  # A^2

_counts = jax.jit(histogram.pair_histogram, static_argnums=(1, 2))


def curve(observable, s, **options):
    fitted = observable.fit(s, **options)
    return np.asarray(fitted.from_histogram(s, _counts(s, fitted.spec, fitted.points)[0]))


# --- DebyeCalculator: a cluster ---------------------------------------------------------------------------------------------------------------


def cluster():
    """96 atoms of silica, a random packing, in the middle of nothing: (structure, symbols, positions)."""
    symbols = ["Si", "O", "O"] * 32
    packed = st.random_packing(0, symbols, cell=np.eye(3) * 11.3, minimum_distance=1.4, elements=("Si", "O"))
    positions = np.asarray(packed.positions, float)
    return st.structure(positions, np.eye(3) * VACUUM, symbols, elements=("Si", "O")), symbols, positions


def calculator(radiation, qmin, qmax, qstep):
    module = pytest.importorskip("debyecalculator", reason="DebyeCalculator is not installed: pip install glassjax[peers]")
    torch = pytest.importorskip("torch")
    options = dict(qmin=qmin, qmax=qmax + qstep / 2, qstep=qstep, qdamp=0.0, biso=B, rmin=1.0, rmax=20.0, rstep=0.01)
    return module.DebyeCalculator(**options, radiation_type=radiation, device="cpu", dtype=torch.float64)


@pytest.mark.parametrize("radiation", ["xray", "neutron"])
def test_debye_sums_of_a_cluster(radiation):
    """I(Q) per atom with B, S - 1 and Q (S - 1), 1 to 25 1/A, up to a form factor's round-off.

    Tolerance 3e-5 of the largest value: at Q = 25 1/A our radial splines (h = 0.02 A) are good to (Q h)^4 / 700 = 9e-5 of one pair's sinc, less in
    the sum. Both codes use the Waasmaier-Kirfel form factors and the same coherent lengths (next test).
    """
    s, symbols, positions = cluster()
    peer = calculator(radiation, 1.0, 25.0, 0.1)
    q, intensity = peer.iq((symbols, positions))
    _, reduced = peer.sq((symbols, positions))
    unit = 0.01 if radiation == "neutron" else 1.0  # barn per fm^2: DebyeCalculator's lengths are in fm
    options = dict(weights=radiation, rmax=25.0, window="none")
    mine = curve(structure_factor(q, symbols, function="I", displacement=B, **options), s, capacity=96)
    theirs = 2 * intensity / 96 * unit
    np.testing.assert_allclose(mine, theirs, atol=3e-5 * theirs.max(), rtol=0)
    # our S is not damped: the same damping, by hand
    damping = np.exp(-(q**2) * B / (8 * np.pi**2))
    ours = (curve(structure_factor(q, symbols, **options), s, capacity=96) - 1) * damping
    np.testing.assert_allclose(ours, 2 * reduced, atol=3e-5 * np.abs(2 * reduced).max(), rtol=0)


def test_tables_are_debyecalculators():
    """X-ray form factors to 1e-5 (both Waasmaier-Kirfel), coherent lengths to its printed digits."""
    peer = calculator("xray", 1.0, 25.0, 0.5)
    q = peer.q.numpy()[:, 0]
    for e in ("Si", "O", "Cu", "Zr"):
        np.testing.assert_allclose(xray_form_factor(e, q), peer.form_factor_func(peer.FORM_FACTOR_COEF[e]).numpy(), rtol=1e-5)
        assert neutron_length(e) == pytest.approx(float(peer.FORM_FACTOR_COEF[e][11]), abs=2e-3)


def test_debye_transform_of_a_cluster():
    """G(r) seen between Q = 1 and 25 1/A, X-rays with f(Q), on r beyond the cluster: a lower limit in Q couples all pairs."""
    s, symbols, positions = cluster()
    peer = calculator("xray", 1.0, 25.0, 0.005)
    r, theirs = peer.gr((symbols, positions))
    r, theirs = r[::10], 2 * theirs[::10]
    observable = pair_distribution(r, symbols, function="G", weights="xray", width=0.05, qmin=1.0, qmax=25.0, termination="sharp")
    mine = curve(observable, s, capacity=96)
    # a pair's Gaussian is divided by r here and by its distance d there: 0.6 width / d = 2 % of a peak at 1.6 A
    np.testing.assert_allclose(mine, theirs, atol=0.02 * np.abs(theirs).max(), rtol=0)


# --- PDFfit2: crystals ------------------------------------------------------------------------------------------------------------------------

CRYSTALS = {"Ni": bulk("Ni", a=3.52, cubic=True).repeat(3), "MgO": bulk("MgO", "rocksalt", a=4.21, cubic=True).repeat(3)}


def pdffit(atoms: Atoms, kind, qmax, qdamp, qbroad, r):
    """G(r) of PDFfit2 at ``r``, equally spaced."""
    package = pytest.importorskip("diffpy.pdffit2", reason="PDFfit2 is not installed: pip install glassjax[peers]")
    lines = ["format pdffit", "cell " + ", ".join(f"{v:.8f}" for v in atoms.cell.cellpar()), f"ncell 1, 1, 1, {len(atoms)}", "atoms"]
    for symbol, place in zip(atoms.get_chemical_symbols(), atoms.get_scaled_positions(), strict=True):
        lines += [f"{symbol.upper()} " + " ".join(f"{x:.8f}" for x in place) + " 1.0", "0 0 0 0", f"{UISO} {UISO} {UISO}", *["0 0 0"] * 3]
    with open(os.devnull, "w") as nowhere:
        package.redirect_stdout(nowhere)
        one = package.PdfFit()
        one.read_struct_string("\n".join(lines) + "\n")
        one.alloc(kind, qmax, qdamp, float(r[0]), float(r[-1]), len(r))
        one.setvar(one.qdamp(), qdamp)
        one.setvar(one.qbroad(), qbroad)
        one.calc()
        return np.array(one.getpdf_fit())


@pytest.mark.parametrize(("name", "kind", "qdamp", "qbroad"), [("Ni", "N", 0.0, 0.0), ("MgO", "N", 0.04, 0.02), ("Ni", "X", 0.04, 0.02)])
def test_crystals_agree_with_pdffit2(name, kind, qdamp, qbroad):
    """G(r) with Uiso, Qdamp and Qbroad, absolutely, to 1e-4 of its largest value.

    PDFfit2 tabulates its Gaussian in steps of 1e-3 widths and cuts it at 5; its coherent lengths have four digits. Its X-ray weights are
    f(Q = 0), so X-rays are compared for one element, where weights cancel.
    """
    atoms, r = CRYSTALS[name], np.linspace(1.0, 8.0, 701)
    theirs = pdffit(atoms, kind, 0.0, qdamp, qbroad, r)
    weights = {"N": "neutron", "X": "Z"}[kind]
    options = dict(function="G", weights=weights, width=np.sqrt(2 * UISO), qdamp=qdamp, qbroad=qbroad)
    mine = curve(pair_distribution(r, atoms.get_chemical_symbols(), **options), from_atoms(atoms), margin=20.0)
    np.testing.assert_allclose(mine, theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)


def test_termination_agrees_with_pdffit2():
    """Ripples of Qmax = 20 1/A, which are 7 % of the largest value; tolerance 0.5 %: both codes follow ripples a finite distance beyond the ends."""
    atoms, r = CRYSTALS["MgO"], np.linspace(0.01, 20.0, 2000)
    theirs = pdffit(atoms, "N", 20.0, 0.03, 0.01, r)
    inside = slice(150, 1000, 5)
    options = dict(function="G", weights="neutron", width=np.sqrt(2 * UISO), qdamp=0.03, qbroad=0.01, qmax=20.0, termination="sharp")
    mine = curve(pair_distribution(r[inside], atoms.get_chemical_symbols(), **options), from_atoms(atoms), margin=20.0)
    np.testing.assert_allclose(mine, theirs[inside], atol=5e-3 * np.abs(theirs).max(), rtol=0)


# --- freud and ASE: counts of pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pair", "gaps"), [(("Mg", "O"), (2.85, 4.2, 5.5)), (("Mg", "Mg"), (3.6, 4.68, 5.55))])
def test_partial_counts_agree_with_freud_and_ase(pair, gaps):
    """Running partial coordination numbers in gaps between shells, oblique cell: freud's RDF, ASE's neighbour list, and 4 pi c rho0 int r^2 g_ab.

    Tolerance 2e-3: the trapezoid rule on 0.01 A of Gaussians of 0.05 A is exact; freud stores 32-bit numbers.
    """
    freud = pytest.importorskip("freud")
    atoms = make_supercell(bulk("MgO", "rocksalt", a=4.21, cubic=True), [[3, 0, 0], [1, 3, 0], [0, 1, 3]])
    atoms.positions += np.random.default_rng(0).normal(scale=0.04, size=atoms.positions.shape)
    assert np.allclose(atoms.cell, np.tril(atoms.cell))
    symbols = np.array(atoms.get_chemical_symbols())
    box = freud.box.Box.from_matrix(np.asarray(atoms.cell).T)
    points = [box.wrap(atoms.positions[symbols == e] - np.asarray(atoms.cell).sum(axis=0) / 2) for e in pair]
    rdf = freud.density.RDF(bins=560, r_max=5.6)
    rdf.compute((box, points[1]), query_points=points[0] if pair[0] != pair[1] else None)
    i, j, d = neighbor_list("ijd", atoms, 5.6)
    d = d[(symbols[i] == pair[0]) & (symbols[j] == pair[1])]
    r = np.arange(1.0, 5.6, 0.01)
    g = curve(pair_distribution(r, symbols, partial=pair, width=0.05), from_atoms(atoms), margin=8.0)
    shell = 4 * np.pi * len(points[1]) / atoms.get_volume() * r**2 * g
    for gap in gaps:
        ase = np.sum(d < gap) / len(points[0])
        assert np.interp(gap, rdf.bin_edges[1:], rdf.n_r) == pytest.approx(ase, abs=2e-3)
        assert np.sum(shell[r < gap]) * 0.01 == pytest.approx(ase, abs=2e-3)


# --- two ways through the pairs ---------------------------------------------------------------------------------------------------------------


def test_streamed_pairs_are_the_listed_ones(points=260):
    """Histogram and gradients in positions and cell: an oblique cell smaller than the reach, two elements, an empty slot, atoms outside the cell."""
    cell = np.array([[8.0, 0.3, -0.2], [2.5, 8.5, 0.4], [-3.0, 2.0, 9.0]])
    s = st.random_packing(0, ["Si", "O", "O"] * 6, cell=cell, minimum_distance=1.2, elements=("Si", "O"))
    moved = s.positions + np.array([[30.0, -7.0, 3.0]]) * (np.arange(18) % 2)[:, None]
    s = replace(s, positions=moved, species=s.species.at[3].set(-1))
    spec = neighbor_spec(s, 5.5, margin=16.0)
    assert len(spec.shifts) > 1 and not histogram.streams(18, spec) and histogram.streams(1000, spec)
    cotangent = jax.numpy.asarray(np.random.default_rng(0).normal(size=(4, points)))
    both = jax.jit(lambda p, c: histogram._histogram(p, c, s.species, s.elements, spec, points)[0])
    listed, back = jax.vjp(both, s.positions, s.cell)
    streamed = jax.jit(lambda s, c: (histogram.stream_deposit(s, spec, points), *histogram.stream_back(s, spec, c)))(s, cotangent)
    for mine, expected in zip(streamed, (listed, *back(cotangent)), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-10 * np.abs(expected).max())
