"""Neighbour lists against ASE's, for every kind of cell and both builders."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from glassjax import neighbors as nb
from glassjax import structure as st
from glassjax.compaction import compact
from glassjax.io.atoms import to_atoms

pytestmark = pytest.mark.usefixtures("quick_compile")

ORTHORHOMBIC = np.diag([7.0, 9.0, 11.0])
TRICLINIC = np.array([[8.0, 0.3, -0.2], [2.5, 8.5, 0.4], [-3.0, 2.0, 9.0]])
SKEWED = np.array([[5.0, 0.0, 0.0], [4.6, 5.0, 0.0], [-4.8, 4.7, 5.0]])  # minimum image by rounding is wrong here
LEFT_HANDED = TRICLINIC[[1, 0, 2]]
build = jax.jit(nb.build, static_argnums=1)


def gas(n, cell, seed=0, spread=1.0):
    """Random atoms; ``spread`` > 1 puts some of them outside the cell."""
    frac = (np.random.default_rng(seed).uniform(size=(n, 3)) - 0.5) * spread + 0.5
    return st.structure(frac @ cell, cell, ["Si"] * n)


def listed(s, graph):
    """{(i, j, lattice shift): distance} of a graph; the displacement must be r_j - r_i + shift @ cell."""
    mask = np.asarray(graph.mask)
    i, _ = np.nonzero(mask)
    j, d, r = (np.asarray(x)[mask] for x in (graph.neighbors, graph.displacements, graph.distances))
    positions, cell = np.asarray(s.positions), np.asarray(s.cell)
    shift = (d - positions[j] + positions[i]) @ np.linalg.inv(cell)
    assert np.abs(shift - np.round(shift)).max(initial=0.0) < 1e-4
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), r, rtol=1e-5)
    keys = [tuple(map(int, k)) for k in np.column_stack([i, j, np.round(shift)])]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, r, strict=True))


def reference(s, cutoff):
    i, j, shift, d = neighbor_list("ijSd", to_atoms(s), cutoff)
    return dict(zip([tuple(map(int, k)) for k in np.column_stack([i, j, shift])], d, strict=True))


def same(mine, theirs, tolerance=1e-9):
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert value == pytest.approx(theirs[key], abs=tolerance)


CASES = {
    "orthorhombic": (ORTHORHOMBIC, 40, 3.4),
    "orthorhombic, beyond the inscribed radius": (ORTHORHOMBIC, 24, 6.0),
    "triclinic": (TRICLINIC, 40, 3.5),
    "triclinic, beyond the inscribed radius": (TRICLINIC, 20, 7.0),
    "left-handed": (LEFT_HANDED, 20, 5.0),
    "skewed": (SKEWED, 12, 2.4),
    "skewed, many images": (SKEWED, 6, 7.5),
    "one atom, self-images": (np.diag([2.5, 3.0, 2.0]), 1, 5.0),
    "two atoms, tiny triclinic": (np.array([[2.3, 0.0, 0.0], [1.1, 2.4, 0.0], [-0.9, 0.8, 2.2]]), 2, 6.0),
    "no neighbour": (np.diag([30.0, 30.0, 30.0]), 2, 0.5),
}


@pytest.mark.parametrize("name", CASES)
def test_all_pairs_agree_with_ase(x64, name):
    cell, n, cutoff = CASES[name]
    s = gas(n, cell, seed=len(name), spread=3.0)
    graph = build(s, nb.neighbor_spec(s, cutoff, margin=12.0))
    theirs = reference(s, cutoff)
    same(listed(s, graph), theirs)
    degrees = np.bincount([k[0] for k in theirs], minlength=n)
    np.testing.assert_array_equal(graph.needed, [degrees.max(), degrees.sum(), 0])
    np.testing.assert_array_equal(np.asarray(graph.mask).sum(axis=1), degrees)


def test_single_precision_agrees_with_ase():
    s = gas(40, TRICLINIC, seed=5)
    theirs = reference(s, 5.0)
    assert min(abs(d - 5.0) for d in theirs.values()) > 1e-5
    same(listed(s, build(s, nb.neighbor_spec(s, 5.0, margin=12.0))), theirs, tolerance=1e-5)


@pytest.mark.parametrize("cell", [np.diag([13.0, 16.5, 20.0]), 2.1 * TRICLINIC], ids=["orthorhombic", "triclinic"])
@pytest.mark.parametrize("cutoff", [3.1, 4.2])
def test_cell_list_agrees_with_ase(x64, cell, cutoff):
    s = gas(150, cell, seed=3, spread=3.0)
    spec = nb.neighbor_spec(s, cutoff, cell_list=True, margin=12.0)
    assert spec.grid is not None and len(set(spec.grid)) > 1
    graph = build(s, spec)
    same(listed(s, graph), reference(s, cutoff))
    assert np.isfinite(graph.distances).all()


def test_cell_list_under_jit_and_vmap(x64):
    batch = st.stack([gas(60, 2.0 * TRICLINIC, seed=i) for i in range(3)])
    spec = nb.neighbor_spec(st.unstack(batch)[0], 4.0, cell_list=True, margin=14.0)
    many = jax.jit(jax.vmap(lambda s: nb.build(s, spec)))(batch)
    for one, s in zip([jax.tree.map(lambda leaf, i=i: leaf[i], many) for i in range(3)], st.unstack(batch), strict=True):
        same(listed(s, one), reference(s, 4.0))


def test_cell_list_is_refused_in_a_small_cell():
    with pytest.raises(ValueError, match="cell list"):
        nb.neighbor_spec(gas(8, ORTHORHOMBIC), 3.0, cell_list=True)
    with pytest.raises(ValueError, match="positive"):
        nb.neighbor_spec(gas(8, ORTHORHOMBIC), 0.0)


def test_images_in_range_is_neither_short_nor_wasteful(x64):
    """Against a fine scan of fractional differences: every image that is met is listed; every listed one comes close."""
    cases = ((ORTHORHOMBIC, 6.0), (SKEWED, 3.0), (TRICLINIC, 4.5), (np.diag([9.0, 10.0, 11.0]), 8.0), (np.diag([4.0, 5.0, 6.0]), 9.0))
    for cell, cutoff in cases:
        found = nb.images_in_range(cell, cutoff)
        axis = np.linspace(-0.5, 0.5, 21)
        f = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        side, nearest = np.where(f < 0, -1.0, 1.0), {}
        for shift in np.ndindex(9, 9, 9):
            shift = tuple(c - 4 for c in shift)
            nearest[shift] = np.linalg.norm((f - side * shift) @ cell, axis=1).min()
        slack = 0.05 * np.linalg.norm(cell, axis=1).sum() / 2
        assert {s for s, d in nearest.items() if d < cutoff} <= set(found) <= {s for s, d in nearest.items() if d < cutoff + slack}
        assert found[0] == (0, 0, 0) and len(set(found)) == len(found)
    # in a cell wider than the cutoff the far side is out of range: eight images at most, where all sides would be 27
    assert set(nb.images_in_range(np.diag([9.0, 10.0, 11.0]), 8.0)) <= set(np.ndindex(2, 2, 2))


def test_overflow_is_nan_and_growing_mends_it():
    s = gas(40, ORTHORHOMBIC, seed=1)
    theirs = reference(s, 4.0)
    degrees = np.bincount([k[0] for k in theirs], minlength=40)
    short = nb.neighbor_spec(s, 4.0, capacity=3)
    graph = build(s, short)
    assert np.isnan(graph.displacements).all() and np.isnan(graph.distances).all()
    assert tuple(graph.needed[:2]) == (degrees.max(), degrees.sum())
    enough = nb.grow(short, graph.needed)
    assert enough.capacity >= degrees.max()
    same(listed(s, build(s, enough)), theirs, tolerance=1e-5)
    assert nb.grow(enough, graph.needed) is enough


def test_exact_capacity_is_enough():
    s = gas(40, ORTHORHOMBIC, seed=1)
    most = int(build(s, nb.neighbor_spec(s, 4.0, margin=12.0)).needed[0])
    assert np.isfinite(build(s, nb.neighbor_spec(s, 4.0, capacity=most)).distances).all()
    assert np.isnan(build(s, nb.neighbor_spec(s, 4.0, capacity=most - 1)).distances).all()


def test_packed_edges_overflow_is_nan_and_growing_mends_it():
    s = gas(40, ORTHORHOMBIC, seed=2)
    spec = dataclasses.replace(nb.neighbor_spec(s, 4.0, margin=12.0), edges=16)
    graph = build(s, spec)
    assert np.isfinite(graph.distances).all()
    packed = graph.to_jraph(s.species)
    assert np.isnan(packed.edges["displacements"]).all() and np.isnan(packed.edges["distances"]).all()
    wide = nb.grow(spec, graph.needed)
    assert wide.edges >= graph.needed[1]
    assert np.isfinite(build(s, wide).to_jraph(s.species).edges["displacements"]).all()


def test_cell_capacity_overflow_is_nan_and_growing_mends_it():
    rng = np.random.default_rng(0)
    s = st.structure(rng.normal(8.333, 0.8, (60, 3)), np.diag([20.0] * 3), ["Si"] * 60)  # most atoms in one cell of six along each axis
    spec = nb.neighbor_spec(s, 3.0, cell_list=True)
    for _ in range(4):
        graph = build(s, spec)
        larger = nb.grow(spec, graph.needed)
        if larger == spec:
            break
        if (larger.cell_capacity, larger.capacity) != (spec.cell_capacity, spec.capacity):
            assert np.isnan(graph.distances).all()
        spec = larger
    same(listed(s, graph), reference(s, 3.0), tolerance=1e-5)
    assert graph.needed[2] > 40


def test_a_batch_grows_to_its_largest_member():
    spec = nb.NeighborSpec(cutoff=3.0, capacity=8, edges=64)
    grown = nb.grow(spec, np.array([[9, 60, 0], [5, 200, 0]]))
    assert grown.capacity >= 9 and grown.edges >= 200


@pytest.mark.parametrize("cell", [ORTHORHOMBIC, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_vmap_and_jit_equal_eager(cell):
    batch = [gas(20, cell, seed=i) for i in range(3)]
    spec = nb.neighbor_spec(batch[0], 4.0, margin=12.0)
    eager = [nb.build(s, spec) for s in batch[:2]]
    compiled = [build(s, spec) for s in batch]
    mapped = jax.vmap(lambda s: nb.build(s, spec))(st.stack(batch))
    for i, one in enumerate(eager):
        for other in (compiled[i], jax.tree.map(lambda leaf, i=i: leaf[i], mapped)):
            np.testing.assert_array_equal(one.neighbors, other.neighbors)
            np.testing.assert_array_equal(one.mask, other.mask)
            np.testing.assert_allclose(one.displacements, other.displacements, atol=1e-5)


@pytest.mark.parametrize(("cell", "n", "cutoff"), [(TRICLINIC, 30, 4.5), (np.diag([2.5, 3.0, 2.2]), 2, 5.0)], ids=["triclinic", "self-images"])
def test_packed_edges_equal_dense(cell, n, cutoff):
    s = gas(n, cell, seed=4)
    graph = build(s, nb.neighbor_spec(s, cutoff, margin=12.0))
    packed = graph.to_jraph(s.species, reverse=True)
    filled, mask = np.asarray(packed.edges["mask"]), np.asarray(graph.mask)
    senders, receivers, vectors = (np.asarray(x)[filled] for x in (packed.senders, packed.receivers, packed.edges["displacements"]))
    # an edge runs from the neighbour (sender) to atom i (receiver); its vector points from i to the neighbour
    np.testing.assert_array_equal(receivers, np.nonzero(mask)[0])
    np.testing.assert_array_equal(senders, np.asarray(graph.neighbors)[mask])
    np.testing.assert_array_equal(vectors, np.asarray(graph.displacements)[mask])
    np.testing.assert_array_equal(np.asarray(packed.edges["distances"])[filled], np.asarray(graph.distances)[mask])
    assert sorted(zip(receivers.tolist(), senders.tolist(), strict=True)) == sorted(k[:2] for k in reference(s, cutoff))
    # the tables of edges that end and start at each node
    for table, ends in ((packed.nodes["incoming"], receivers), (packed.nodes["outgoing"], senders)):
        for atom, row in enumerate(np.asarray(table)):
            assert sorted(row[row >= 0].tolist()) == np.flatnonzero(ends == atom).tolist()
    # the same in rows
    rows = graph.to_jraph(s.species, reverse=True, rows=True)
    np.testing.assert_array_equal(np.asarray(rows.edges["displacements"])[mask.reshape(-1)], vectors)
    np.testing.assert_array_equal(np.asarray(rows.receivers)[mask.reshape(-1)], receivers)
    for atom, row in enumerate(np.asarray(rows.nodes["outgoing"])):
        assert sorted(row[row >= 0].tolist()) == np.flatnonzero((np.asarray(rows.senders) == atom) & mask.reshape(-1)).tolist()


@pytest.mark.parametrize("cell_list", [False, True])
def test_empty_slots_have_no_neighbours(cell_list):
    s = gas(60, np.diag([13.0] * 3), seed=6)
    filled = np.ones(60, bool)
    filled[[0, 7, 30, 59]] = False
    holes = dataclasses.replace(s, species=jnp.where(filled, s.species, -1))
    graph = build(holes, nb.neighbor_spec(holes, 4.0, cell_list=cell_list, margin=14.0))
    index = np.flatnonzero(filled)
    rest = reference(st.structure(np.asarray(s.positions)[filled], s.cell, ["Si"] * len(index)), 4.0)
    same(listed(holes, graph), {(int(index[k[0]]), int(index[k[1]]), *k[2:]): v for k, v in rest.items()}, tolerance=1e-5)
    assert not np.asarray(graph.mask)[~filled].any()
    assert int(st.number_of_atoms(holes)) == 56


def test_coincident_atoms_are_neighbours_and_not_lost(x64):
    s = st.structure([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [3.0, 1.0, 1.0]], np.diag([9.0] * 3), ["Si"] * 3)
    assert listed(s, build(s, nb.neighbor_spec(s, 3.0))).keys() == {
        (0, 1, 0, 0, 0), (1, 0, 0, 0, 0), (0, 2, 0, 0, 0), (2, 0, 0, 0, 0), (1, 2, 0, 0, 0), (2, 1, 0, 0, 0),
    }  # fmt: skip


def test_distances_are_differentiable(x64):
    """d r_ij / d r_j is the unit vector; summed over all pairs, by finite differences in positions and cell."""
    s = gas(10, SKEWED, seed=2)
    spec = nb.neighbor_spec(s, 4.0, margin=12.0)

    def total(positions, cell):
        graph = nb.build(dataclasses.replace(s, positions=positions, cell=cell), spec)
        return jnp.sum(jnp.where(graph.mask, jnp.exp(-(graph.distances**2)), 0.0))

    gp, gc = jax.grad(total, argnums=(0, 1))(s.positions, s.cell)
    rng, h = np.random.default_rng(0), 1e-5
    for g, which in ((gp, 0), (gc, 1)):
        v = jnp.asarray(rng.normal(size=g.shape))
        ends = [total(*(x + sign * h * v if i == which else x for i, x in enumerate((s.positions, s.cell)))) for sign in (1, -1)]
        assert float(jnp.vdot(g, v)) == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "rows, width, share, capacity", [(40, 50, 0.3, 40), (9, 1512, 0.1, 200), (5, 33, 1.0, 33), (6, 31, 0.0, 4), (7, 64, 0.9, 12)]
)
def test_compact_finds_the_first_true_columns(rows, width, share, capacity):
    """Against numpy: widths that fill no word, full and empty rows, and rows with more than fit."""
    near = np.random.default_rng(0).random((rows, width)) < share
    columns, mask, degree = (np.asarray(a) for a in jax.jit(compact, static_argnums=1)(jnp.asarray(near), capacity))
    np.testing.assert_array_equal(degree, near.sum(axis=1))
    for row in range(rows):
        expected = np.flatnonzero(near[row])[:capacity]
        np.testing.assert_array_equal(columns[row][mask[row]], expected)
        assert mask[row].sum() == len(expected)
