"""Angle distribution and coordination: closed forms, an independent neighbour list, exact derivatives, and what must not break."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glassjax import structure as st
from glassjax._pytree import replace
from glassjax.neighbors import build, neighbor_spec
from glassjax.observables.angle import angle_distribution
from glassjax.observables.coordination import coordination_distribution, coordination_number

ELEMENTS = ("Si", "O")
TRICLINIC = np.array([[6.4, 0.0, 0.0], [1.5, 6.1, 0.0], [-1.1, 0.8, 5.9]])
ANGLES = np.linspace(0.0, 180.0, 41)
SWITCH = 0.7


def mixture(n=14):
    symbols = [ELEMENTS[i % 3 > 0] for i in range(n)]
    return st.random_packing(1, symbols, cell=TRICLINIC, minimum_distance=1.4, elements=ELEMENTS)


def diamond():
    a = 5.431
    base = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    return st.structure(base * a, [a] * 3, ["Si"] * 8)


def weight(r, cutoff, switch):
    """The definition, by itself: a smooth step of vanishing first and second derivative at both ends."""
    if switch == 0:
        return (r < cutoff).astype(float)
    t = np.clip((cutoff + switch / 2 - r) / switch, 0, 1)
    return 6 * t**5 - 15 * t**4 + 10 * t**3


def edges(s, reach):
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    return neighbor_list("ijdD", Atoms(s.symbols, np.asarray(s.positions), cell=np.asarray(s.cell), pbc=True), reach)


def angles_of(s, triplet, cutoff, switch):
    """Angles (rad) and weights of all triplets from ase's neighbour list."""
    i, j, d, vector = edges(s, cutoff + switch / 2)
    symbols, found = np.array(s.symbols), []
    for centre in range(len(symbols)):
        mine = np.flatnonzero(i == centre)
        for p, q in ((p, q) for x, p in enumerate(mine) for q in mine[x + 1 :]):
            ends = (symbols[j[p]], symbols[j[q]])
            if triplet is None or (symbols[centre] == triplet[1] and ends in ((triplet[0], triplet[2]), (triplet[2], triplet[0]))):
                cosine = np.clip(vector[p] @ vector[q] / d[p] / d[q], -1, 1)
                found.append((np.arccos(cosine), weight(d[p], cutoff, switch) * weight(d[q], cutoff, switch)))
    return np.array(found).T


@pytest.mark.parametrize("triplet, switch", [(None, 0.0), (("O", "Si", "O"), SWITCH), (("Si", "O", "O"), SWITCH)])
def test_angles_equal_a_sum_over_the_triplets_of_another_neighbour_list(x64, quick_compile, triplet, switch):
    s = mixture()
    observable = angle_distribution(ANGLES, ELEMENTS, triplet=triplet, cutoff=2.6, switch=switch, width=0.15).fit(s)
    theta, amount = angles_of(s, triplet, 2.6, switch)
    x = np.radians(ANGLES)[:, None]
    gauss = sum(np.exp(-0.5 * ((x - t) / 0.15) ** 2) for t in (theta, -theta, 2 * np.pi - theta)) / (0.15 * math.sqrt(2 * math.pi))
    expected = gauss @ amount / amount.sum()
    got = jax.jit(observable)(s)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    np.testing.assert_allclose(np.trapezoid(got, np.radians(ANGLES)), 1.0, atol=1e-6)


def test_diamond_has_one_gaussian_at_the_tetrahedral_angle_and_four_neighbours(quick_compile):
    s, x = diamond(), np.linspace(0, 180, 361)
    angles = angle_distribution(x, ["Si"], cutoff=2.9, switch=0.3).fit(s)
    number = coordination_number(["Si"], None, cutoff=2.9).fit(s)
    shares = coordination_distribution("Si-Si", range(9), ["Si"], cutoff=2.9).fit(s)
    got, four, part = jax.jit(lambda s: (angles(s), number(s), shares(s)))(s)
    expected = np.exp(-0.5 * ((np.radians(x) - math.acos(-1 / 3)) / 0.1) ** 2) / (0.1 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(got, expected, atol=1e-5 * expected.max())
    assert abs(x[np.argmax(got)] - 109.47) <= 0.25
    assert four[0] == pytest.approx(4.0)
    weights = np.exp(-0.5 * ((np.arange(9) - 4) / 0.35) ** 2)
    np.testing.assert_allclose(part, weights / weights.sum(), atol=1e-6)


def test_coordination_equals_a_sum_over_another_neighbour_list(x64, quick_compile):
    s, pairs, cutoff = mixture(), ["Si-O", "O-Si", ("O", "O"), None], np.array([2.3, 2.3, 2.9, 3.1])
    got = jax.jit(coordination_number(ELEMENTS, pairs, cutoff=cutoff, switch=SWITCH).fit(s))(s)
    i, j, d, _ = edges(s, 4.0)
    symbols = np.array(s.symbols)
    for value, pair, c in zip(got, ["Si-O", "O-Si", "O-O", None], cutoff, strict=True):
        a, b = (np.ones(14, bool),) * 2 if pair is None else (symbols == e for e in pair.split("-"))
        assert value == pytest.approx((weight(d, c, SWITCH) * a[i] * b[j]).sum() / a.sum(), rel=1e-9)
    shares = jax.jit(coordination_distribution("Si-O", range(12), ELEMENTS, cutoff=2.3, switch=SWITCH).fit(s))(s)
    numbers = np.array([(weight(d, 2.3, SWITCH) * (i == k) * (symbols[j] == "O")).sum() for k in np.flatnonzero(symbols == "Si")])
    gauss = np.exp(-0.5 * ((np.arange(12) - numbers[:, None]) / 0.35) ** 2)
    np.testing.assert_allclose(shares, (gauss / gauss.sum(1, keepdims=True)).mean(0), atol=1e-9)


OBSERVABLES = {
    "angles, two kinds of ends": lambda: angle_distribution(
        ANGLES, ELEMENTS, triplet="Si-O-O", cutoff={("Si", "O"): 2.4, ("O", "O"): 2.8}, switch=0.4
    ),
    "angles, published cutoff": lambda: angle_distribution(ANGLES[::4], ELEMENTS, cutoff=2.5),
    "coordination": lambda: coordination_number(ELEMENTS, ["Si-O", "O-Si", None], cutoff=[2.4, 2.5, 2.8], switch=SWITCH),
    "distribution": lambda: coordination_distribution("O-Si", range(8), ELEMENTS, cutoff=2.5, switch=SWITCH),
}


@pytest.mark.parametrize("name", OBSERVABLES)
def test_linearize_equals_reverse_differentiation_and_finite_differences(x64, quick_compile, name):
    """A cell so small that images beyond the nearest count; the graph reaches farther than the observable and is cut down to its bonds."""
    s = mixture()
    observable = OBSERVABLES[name]().fit(s)

    def curve(positions, cell):
        return observable(replace(s, positions=positions, cell=cell))

    spec = neighbor_spec(s, 3.6)
    assert len(spec.shifts) > 1 and spec.capacity > observable.spec.capacity
    value, jacobian, strain = jax.jit(lambda s: observable.linearize(s, build(s, spec)))(s)
    by_positions, by_cell = jax.jit(jax.jacrev(curve, argnums=(0, 1)))(s.positions, s.cell)
    np.testing.assert_allclose(jnp.moveaxis(jacobian, -1, 0), by_positions, atol=1e-10)
    # the same through the cell: positions and cell scale together
    stretched = jnp.einsum("mnc,nc->m", by_positions, s.positions) + jnp.einsum("mab,ab->m", by_cell, s.cell)
    np.testing.assert_allclose(strain, stretched, atol=1e-10)
    rng, h = np.random.default_rng(0), 2e-6
    move, shear = rng.normal(size=s.positions.shape), rng.normal(size=(3, 3))
    at = jax.jit(lambda step: curve(s.positions + step * move, s.cell + step * shear))
    slope = (at(h) - at(-h)) / (2 * h)
    expected = jnp.einsum("ncm,nc->m", jacobian, move) + jnp.einsum("mab,ab->m", by_cell, shear)
    np.testing.assert_allclose(value, at(0.0), atol=1e-12)
    np.testing.assert_allclose(slope, expected, atol=1e-6 * float(jnp.abs(expected).max()))
    assert jnp.abs(jacobian).max() > 0.01


def cluster(positions, species=None):
    """Five slots in a wide box; slots beyond the positions are empty."""
    n = len(positions)
    filled = np.concatenate([np.asarray(positions, float), np.full((5 - n, 3), 0.5)])
    s = st.structure(filled, [12.0] * 3, ["Si"] * 5)
    return replace(s, species=jnp.where(jnp.arange(5) < n, 0, -1))


def test_collinear_coincident_and_missing_atoms_give_finite_values(x64, quick_compile):
    observable = angle_distribution(ANGLES, ["Si"], cutoff=2.6, switch=0.5).fit(cluster([[0, 0, 0]] * 5))
    assert observable.spec.capacity >= 4
    weights = jnp.asarray(np.random.default_rng(1).normal(size=len(ANGLES)))

    @jax.jit
    def run(s):
        gradient = jax.grad(lambda p: weights @ observable(replace(s, positions=p)))(s.positions)
        curve, jacobian, strain = observable.linearize(s, build(s, observable.spec))
        return observable(s), gradient, curve, jacobian @ weights, strain

    def checked(s):
        value, gradient, curve, through, strain = run(s)
        np.testing.assert_allclose(curve, value, atol=1e-12)
        np.testing.assert_allclose(through, gradient, atol=1e-8)
        assert np.isfinite(strain).all()
        return value, gradient

    chain = [[1, 1, 1], [3.2, 1, 1], [5.4, 1, 1]]
    value, gradient = checked(cluster(chain))
    straight = 2 * np.exp(-0.5 * ((np.radians(ANGLES) - np.pi) / 0.1) ** 2) / (0.1 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(value, straight, atol=1e-5 * straight.max())
    assert np.abs(gradient).max() < 1e-3  # an extremum by symmetry
    bent = np.array(chain) + [[0, 0, 0], [0, 1e-4, 0], [0, 0, 0]]
    h, (_, gradient) = 1e-5, checked(cluster(bent))
    by_hand = [weights @ run(cluster(bent + sign * h * np.eye(3)[1] * np.array([[0], [1], [0]])))[0] for sign in (1, -1)]
    assert gradient[1, 1] == pytest.approx(float(by_hand[0] - by_hand[1]) / (2 * h), rel=1e-4)
    for positions in ([[1, 1, 1], [1, 1, 1], [3, 1, 1], [1, 3, 1]], [[1, 1, 1], [3, 1, 1], [1, 3, 1], [9, 9, 9]]):
        value, gradient = checked(cluster(positions))
        assert np.isfinite(value).all() and np.isfinite(gradient).all() and np.trapezoid(value, np.radians(ANGLES)) == pytest.approx(1, abs=1e-3)
    value, gradient = checked(cluster([[1, 1, 1], [3, 1, 1]]))
    assert not value.any() and not gradient.any()  # no triplet


def test_derivatives_of_many_atoms_side_by_side(quick_compile):
    """More atoms than one block holds and no multiple of it, one slot empty, single precision, two structures as one batch."""
    rng = np.random.default_rng(5)
    species = jnp.where(jnp.arange(40) < 39, jnp.arange(40) % 2, -1)
    cells = [replace(st.structure(rng.uniform(0, 9.0, (40, 3)), [9.0] * 3, ["Si", "O"] * 20), species=species) for _ in range(2)]
    observable = angle_distribution(ANGLES[::6], ["Si", "O"], cutoff=2.8, switch=0.3, triplet="Si-O-O").fit(cells[0], margin=2.0)
    weights = jnp.asarray(rng.normal(size=len(observable.x)), jnp.float32)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cells)
    _, jacobian, _ = jax.jit(jax.vmap(lambda s: observable.linearize(s, build(s, observable.spec))))(both)
    slope = jax.jit(jax.grad(lambda p, s: weights @ observable(replace(s, positions=p))))
    for one, found in zip(cells, jacobian, strict=True):
        expected = slope(one.positions, one)
        assert found.dtype == jnp.float32 and not found[39].any() and jnp.abs(expected).max() > 0.01
        np.testing.assert_allclose(found @ weights, expected, atol=2e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("make", [lambda: angle_distribution(ANGLES[::4], ["Si"], cutoff=2.6), lambda: coordination_number(["Si"], None, cutoff=2.6)])
def test_overflow_gives_nan_everywhere_and_never_a_wrong_curve(make, quick_compile):
    s = diamond()
    observable = make().fit(s, capacity=3)
    longer = neighbor_spec(s, 3.0)  # fits, but its bonds do not fit the observable's capacity
    for part in jax.tree.leaves(jax.jit(lambda s: (observable(s), observable.linearize(s, build(s, longer))))(s)):
        assert np.isnan(part).all()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: angle_distribution([0, 200], ["Si"], cutoff=2.6), "180"),
        (lambda: angle_distribution(ANGLES, ["Si"], cutoff=2.6, triplet="O-Si-O"), "from Si"),
        (lambda: angle_distribution(ANGLES, ["Si"], cutoff=2.6, triplet="Si-Si"), "three"),
        (lambda: angle_distribution(ANGLES, ["Si"], cutoff=-1.0), "positive"),
        (lambda: angle_distribution(ANGLES, ["Si"], cutoff={("Si", "C"): 2.0}), "C"),
        (lambda: angle_distribution(ANGLES, ["Si"], cutoff=2.6, width=0.001), "rad"),
        (lambda: angle_distribution(ANGLES, ["Si"], cutoff=2.6, switch=6.0), "switch"),
        (lambda: coordination_number(["Si"], [], cutoff=2.6), "at least one pair"),
        (lambda: coordination_number(["Si"], ["Si-Si"], cutoff=[2.6, 2.7]), "one per pair"),
        (lambda: coordination_number(["Si"], ["Si-O"], cutoff=2.6), "from Si"),
        (lambda: coordination_distribution("Si-Si", [3, 2], ["Si"], cutoff=2.6), "ascending"),
        (lambda: coordination_distribution("Si-Si", range(5), ["Si"], cutoff=2.6, width=0.0), "width"),
        (lambda: angle_distribution(ANGLES, ["O", "Si"], cutoff=2.6)(mixture()), "in this order"),
        (lambda: coordination_number(["O", "Si"], ["Si-O"], cutoff=2.6)(mixture()), "in this order"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
