"""Local order against crystals whose numbers are known and against freud, matscipy and scipy."""

import builtins
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import glassjax
from glassjax import structure as st
from glassjax._pytree import replace
from glassjax.analysis.bonds import bonds
from glassjax.analysis.dihedral import dihedral_angles
from glassjax.analysis.modalities import bond_angles_by_kind, smeared, steinhardt_values
from glassjax.analysis.order import bond_order, legendre, partial_coordination, steinhardt, warren_cowley
from glassjax.analysis.rings import ring_counts
from glassjax.analysis.voronoi import _faces, index_fractions, voronoi_indices
from glassjax.neighbors import neighbor_spec

TRICLINIC = np.array([[6.4, 0.0, 0.0], [1.5, 6.1, 0.0], [-1.1, 0.8, 5.9]])
ICOSAHEDRON = np.array([[0, a, b * 1.618034] for a in (1, -1) for b in (1, -1)])
ICOSAHEDRON = np.concatenate([np.roll(ICOSAHEDRON, k, axis=1) for k in range(3)])


def of(atoms):
    return glassjax.from_atoms(atoms)


def cubic(kind, a=4.0, n=1, **options):
    return of(bulk("Cu", kind, a=a, cubic=True, **options).repeat(n))


def mixture(n=40, cell=TRICLINIC * 1.5):
    return st.random_packing(1, [("Si", "O")[i % 3 > 0] for i in range(n)], cell=cell, minimum_distance=1.5, elements=("Si", "O"))


def silicon(n=1):
    return of(bulk("Si", "diamond", a=5.431, cubic=True).repeat(n))


def cristobalite(n=1):
    """Ideal beta-cristobalite: diamond of Si with an O in the middle of each bond."""
    base = bulk("Si", "diamond", a=7.16, cubic=True)
    network = bonds(of(base), 3.2)
    half = [base.positions[i] + 0.5 * v for i, j, v in zip(network.first, network.second, network.vectors, strict=True) if i % 2 == 0]
    return of((base + Atoms(f"O{len(half)}", half)).repeat(n))


def test_chemical_order_of_cesium_chloride_and_of_a_random_mixture():
    ordered = of(bulk("CsCl", "cesiumchloride", a=4.12, cubic=True))
    found = warren_cowley(ordered, 3.7)  # the first shell only
    assert found == pytest.approx({("Cs", "Cl"): -1, ("Cl", "Cs"): -1, ("Cs", "Cs"): 1, ("Cl", "Cl"): 1})
    assert partial_coordination(ordered, 3.7) == {("Cs", "Cs"): 0, ("Cs", "Cl"): 8, ("Cl", "Cs"): 8, ("Cl", "Cl"): 0}
    # L1_2 Cu3Au: 12 Cu about Au; 4 Au and 8 Cu about Cu
    base = bulk("Cu", "fcc", a=3.75, cubic=True)
    base.symbols[0] = "Au"
    found = warren_cowley(of(base), 3.0)
    assert found == pytest.approx({("Au", "Au"): 1, ("Au", "Cu"): -1 / 3, ("Cu", "Au"): -1 / 3, ("Cu", "Cu"): 1 - 8 / 12 / 0.75})
    large = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(8)
    large.symbols[np.random.default_rng(0).permutation(len(large))[: len(large) // 2]] = "Zr"
    found = warren_cowley(of(large), 3.0)
    assert max(map(abs, found.values())) < 4 / np.sqrt(12 * len(large) / 2)


def test_sum_rule_of_chemical_order_and_bonds_of_another_list():
    s = mixture()
    cutoffs = {("Si", "Si"): 3.4, ("Si", "O"): 2.6, ("O", "O"): 2.9}
    found = warren_cowley(s, cutoffs)
    share = {e: s.symbols.count(e) / len(s.symbols) for e in s.elements}
    for a in s.elements:
        assert sum(share[b] * found[a, b] for b in s.elements) == pytest.approx(0, abs=1e-12)
    network = bonds(s, cutoffs)
    assert (network.numbers().sum(axis=1) == glassjax.coordination_numbers(s, cutoffs)).all()
    positions = np.asarray(s.positions, dtype=float)
    np.testing.assert_allclose(positions[network.second] - positions[network.first] + network.shifts @ network.cell, network.vectors, atol=1e-5)
    assert (np.diff(network.first) >= 0).all()


KNOWN = [("fcc", 3.3, 12, 0.190941, 0.574524), ("bcc", 3.7, 8, 0.509175, 0.628539), ("bcc", 4.5, 14, 0.036370, 0.510688)]
KNOWN += [("sc", 4.5, 6, 0.763763, 0.353553)]


@pytest.mark.parametrize("kind, cutoff, number, q4, q6", KNOWN)
def test_steinhardt_of_crystals(kind, cutoff, number, q4, q6, x64):
    network = bonds(cubic(kind), cutoff)
    assert (np.bincount(network.first) == number).all()
    np.testing.assert_allclose(steinhardt_values(network, 4), q4, atol=1e-6)
    np.testing.assert_allclose(steinhardt_values(network, 6), q6, atol=1e-6)


def test_steinhardt_of_an_icosahedron_and_of_atoms_alone(x64):
    vectors = jnp.asarray(ICOSAHEDRON)[None]
    assert float(bond_order(vectors, jnp.ones((1, 12)), 6)[0]) == pytest.approx(np.sqrt(11) / 5, abs=1e-6)
    assert float(bond_order(vectors, jnp.ones((1, 12)), 4)[0]) == pytest.approx(0, abs=1e-3)
    assert float(bond_order(vectors, jnp.zeros((1, 12)), 6)[0]) == 0
    assert float(bond_order(vectors[:, :1], jnp.ones((1, 1)), 6)[0]) == pytest.approx(1)


def test_steinhardt_equals_freud_in_a_triclinic_cell(x64):
    freud = pytest.importorskip("freud")
    s = mixture()
    cell, positions = np.asarray(s.cell), np.asarray(s.positions)
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    turned, positions = (cell @ q) * signs, (positions @ q) * signs
    box = freud.box.Box.from_matrix(turned.T)
    found = {}
    for degree in (4, 6):
        order = freud.order.Steinhardt(l=degree)
        order.compute((box, box.wrap(positions - turned.sum(axis=0) / 2)), neighbors=dict(r_max=2.9, exclude_ii=True))
        found[degree] = np.array(order.particle_order)
        np.testing.assert_allclose(steinhardt_values(bonds(s, 2.9), degree), np.nan_to_num(found[degree]), atol=2e-5)
    spec = neighbor_spec(s, 2.9)
    own = jax.jit(lambda s: steinhardt(s, 6, cutoff=2.9, spec=spec))(s)
    np.testing.assert_allclose(own, np.nan_to_num(found[6]), atol=2e-5)
    short = jax.jit(lambda s: steinhardt(s, 6, cutoff=2.9, spec=replace(spec, capacity=2)))(s)
    assert np.isnan(short).all()  # overflow is never a number


def test_gradient_of_steinhardt_equals_finite_differences(x64, quick_compile):
    s = mixture(14, TRICLINIC)
    spec, weights = neighbor_spec(s, 3.3, margin=12.0), np.random.default_rng(0).normal(size=14)
    total = jax.jit(lambda p: weights @ steinhardt(replace(s, positions=p), 6, cutoff=2.9, switch=0.8, spec=spec))
    gradient, h = jax.grad(total)(s.positions), 1e-5
    rng = np.random.default_rng(1)
    for _ in range(4):
        step = rng.normal(size=s.positions.shape)
        by_hand = (total(s.positions + h * step) - total(s.positions - h * step)) / (2 * h)
        assert float(jnp.sum(gradient * step)) == pytest.approx(float(by_hand), rel=1e-6, abs=1e-8)
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-10)


def test_legendre_equals_scipy(x64):
    from scipy.special import eval_legendre

    x = np.linspace(-1, 1, 41)
    for degree in (1, 2, 4, 6, 9):
        np.testing.assert_allclose(legendre(degree, jnp.asarray(x)), eval_legendre(degree, x), atol=1e-13)


@pytest.mark.parametrize("n", [1, 2])
def test_diamond_has_two_rings_of_six_per_atom_in_any_cell(n):
    pytest.importorskip("matscipy")
    counts = ring_counts(silicon(n), 2.8, 8)
    assert counts[6] == 2 and counts.sum() == 2


def test_cristobalite_has_rings_of_six_silicon_atoms_and_graphite_hexagons():
    pytest.importorskip("matscipy")
    s = cristobalite()
    assert len(s.species) == 24 and (glassjax.coordination_numbers(s, 1.7) == [4] * 8 + [2] * 16).all()
    counts = ring_counts(s, 1.7, 12)
    assert counts[12] * 24 == pytest.approx(16) and counts.sum() == counts[12]  # 2 per silicon atom
    sheet = Atoms("C4", [[0, 0, 5], [0, 1.42, 5], [1.2298, 2.13, 5], [1.2298, 3.55, 5]], cell=[2.4595, 4.26, 10], pbc=True)
    counts = ring_counts(of(sheet), 1.6, 8)
    assert counts[6] == 0.5 and counts.sum() == 0.5


def test_rings_equal_matscipy_on_a_glass_and_do_not_depend_on_the_cell():
    matscipy_rings = pytest.importorskip("matscipy.rings")
    import ase.io

    atoms = ase.io.read(Path(__file__).parents[1] / "benchmarks/data/silicon_targets.extxyz.gz", index="1")
    theirs = matscipy_rings.ring_statistics(atoms, 2.85, maxlength=8)
    ours = ring_counts(of(atoms), 2.85, 7)
    np.testing.assert_allclose(ours[3:] * len(atoms), theirs[3:8])
    small = atoms.copy()
    del small[[a.index for a in small if max(a.scaled_position) > 0.5]]
    small.set_cell(0.5 * small.cell[:])
    small = small[[i for i in range(len(small)) if not (small.get_all_distances(mic=True)[i, :i] < 1.6).any()]]
    np.testing.assert_allclose(ring_counts(of(small), 2.85, 6), ring_counts(of(small.repeat((2, 1, 1))), 2.85, 6))


def test_without_matscipy_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("matscipy"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "glassjax\[analysis\]"'):
        ring_counts(silicon(), 2.8)


def test_dihedral_angles_of_diamond_are_60_and_180_and_those_of_ase():
    angles, kinds = dihedral_angles(silicon(), 2.8)
    values, counts = np.unique(np.round(angles, 3), return_counts=True)
    assert values.tolist() == [60, 180] and counts.tolist() == [96, 48]  # 16 bonds of 9 chains
    assert (kinds == 0).all()
    # a bent chain of four atoms with a known angle
    chain = Atoms("OSiSiO", [[5, 6, 5], [5, 5, 5], [6, 5, 5], [6, 5 + np.cos(1.1), 5 + np.sin(1.1)]], cell=[20] * 3, pbc=True)
    angles, kinds = dihedral_angles(of(chain), 1.2)
    assert angles == pytest.approx([np.degrees(1.1)], abs=1e-4) and kinds.tolist() == [[1, 1]]
    theirs = chain.get_dihedral(0, 1, 2, 3)
    assert angles[0] == pytest.approx(min(theirs, 360 - theirs), abs=1e-4)
    triangle = Atoms("Si3", [[5, 5, 5], [6, 5, 5], [5.5, 5.866, 5]], cell=[20] * 3, pbc=True)
    assert len(dihedral_angles(of(triangle), 1.2)[0]) == 0


def test_dihedral_angles_of_a_random_mixture_equal_brute_force():
    s = mixture()
    cutoff = 2.3
    network, found = bonds(s, cutoff), []
    for b1 in range(len(network.first)):
        for b0 in np.flatnonzero(network.first == network.first[b1]):
            for b2 in np.flatnonzero(network.first == network.second[b1]):
                u, v, w = -network.vectors[b0], network.vectors[b1], network.vectors[b2]
                if b0 == b1 or np.linalg.norm(v + w) < 1e-6 or np.linalg.norm(u + v + w) < 1e-6:
                    continue
                m, n = np.cross(u, v), np.cross(v, w)
                found.append(np.degrees(np.arctan2(np.linalg.norm(np.cross(m, n)), m @ n)))
    ours = dihedral_angles(s, cutoff)[0]
    assert len(ours) > 100
    np.testing.assert_allclose(np.repeat(np.sort(ours), 2), np.sort(found), atol=1e-4)  # brute force meets a chain from both ends


def test_angles_per_triplet_equal_the_observable(quick_compile):
    s, grid = mixture(), np.linspace(0, 180, 91)
    network = bonds(s, 2.6)
    angles, kinds = bond_angles_by_kind(network)
    np.testing.assert_allclose(np.sort(angles), np.sort(glassjax.bond_angles(s, 2.6)), atol=0.02)
    chosen = np.radians(angles[(kinds == [0, 1, 1]).all(axis=1)])
    observable = glassjax.angle_distribution(grid, s.elements, cutoff=2.6, triplet="O-Si-O", width=0.1).fit(s)
    expected = jax.jit(observable)(s)
    np.testing.assert_allclose(smeared(chosen, np.radians(grid), np.pi, 0.1), expected, atol=2e-4 * float(expected.max()))


@pytest.mark.parametrize("s, name", [(cubic("bcc", n=2), "<0 6 0 8>"), (cubic("bcc"), "<0 6 0 8>")])
def test_voronoi_indices_of_crystals(s, name):
    # a shaken bcc keeps its index
    assert index_fractions(voronoi_indices(s)) == {name: 1.0}
    moved = replace(s, positions=s.positions + 0.05 * np.random.default_rng(0).normal(size=s.positions.shape))
    assert index_fractions(voronoi_indices(moved, smallest_face=0.02)) == {name: 1.0}


def test_atoms_on_top_of_each_other_are_refused():
    s = of(bulk("Cu", "bcc", a=2.9, cubic=True) * (2, 2, 2))
    with pytest.raises(ValueError, match="got two atoms 0.0000 A apart; needs atoms that do not coincide"):
        voronoi_indices(replace(s, positions=s.positions.at[3].set(s.positions[0])))


def test_voronoi_indices_of_frank_kasper_polyhedra():
    # C15 MgCu2: icosahedra about Cu, Friauf polyhedra with 16 faces about Mg
    from ase.spacegroup import crystal

    s = of(crystal(["Mg", "Cu"], [(1 / 8, 1 / 8, 1 / 8), (1 / 2, 1 / 2, 1 / 2)], spacegroup=227, setting=2, cellpar=[7.04] * 3 + [90] * 3))
    found, symbols = voronoi_indices(s), np.array(s.symbols)
    assert (symbols == "Mg").sum() == 8 and (symbols == "Cu").sum() == 16
    assert (found[symbols == "Cu"] == [0, 0, 12, 0]).all() and (found[symbols == "Mg"] == [0, 0, 12, 4]).all()


def test_voronoi_faces_and_edges_obey_euler_and_equal_freud():
    freud = pytest.importorskip("freud")
    s = st.random_packing(2, ["Cu"] * 60, number_density=0.08, minimum_distance=2.0)
    found = voronoi_indices(s)
    length = float(s.cell[0, 0])
    voro = freud.locality.Voronoi()
    points = np.mod(np.asarray(s.positions, dtype=float), length) - length / 2
    voro.compute((freud.box.Box.cube(length), points))
    theirs = np.asarray(voro.nlist.query_point_indices)
    _, owner, corners, area = _faces(s, areas=True)
    faces = np.bincount(owner, minlength=60)
    for atom in range(60):  # freud leaves out a face of 1e-6 A^2
        own, other = (np.sort(areas[where == atom]) for areas, where in ((area, owner), (np.asarray(voro.nlist.weights), theirs)))
        np.testing.assert_allclose(own[own > 1e-5], other[other > 1e-5], atol=1e-4)
    agree = faces == np.bincount(theirs, minlength=60)
    assert agree.sum() >= 58
    # three edges meet at each corner, and faces - edges + corners = 2
    assert (np.array([len(p) for p in voro.polytopes])[agree] == 2 * (faces - 2)[agree]).all()
    assert (np.bincount(owner, weights=corners, minlength=60) == 6 * faces - 12).all()
    assert (found.sum(axis=1) == [np.isin(corners[owner == i], (3, 4, 5, 6)).sum() for i in range(60)]).all()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: bonds(silicon(), -1.0), "positive length"),
        (lambda: bonds(silicon(), {("Si", "C"): 2.0}), "C"),
        (lambda: warren_cowley(silicon(), float("nan")), "positive length"),
        (lambda: ring_counts(silicon(), 2.8, 2), "at least 3"),
        (lambda: voronoi_indices(silicon(), smallest_face=1.0), "share of the surface"),
        (lambda: voronoi_indices(replace(silicon(), species=np.full(8, -1, np.int32))), "needs atoms"),
        (lambda: steinhardt(silicon(), 0, cutoff=2.8), "positive whole number"),
        (lambda: steinhardt(silicon(), 6, cutoff=2.8, spec=neighbor_spec(silicon(), 2.0)), "needs 2.8 A"),
        (lambda: steinhardt(silicon(), 6, cutoff=2.8, switch=9.0), "switch"),
    ],
)
def test_what_makes_no_sense_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
