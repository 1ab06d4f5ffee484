"""Restraints: they lower what they restrain, leave alone what is in the window, and are the formula of their docstring."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ZeroScore

from glassjax import structure as st
from glassjax._pytree import replace
from glassjax.neighbors import build, neighbor_spec
from glassjax.observables.coordination import coordination_number
from glassjax.restraints import coordination_restraint, distance_window

ELEMENTS = ("Si", "O")


def silica(units=12):
    symbols = ["Si", "O", "O"] * units
    return st.random_packing(2, symbols, number_density=0.066, minimum_distance=1.45, elements=ELEMENTS)


def rattled():
    from ase.build import bulk

    atoms = bulk("Si", a=5.431, cubic=True).repeat(2)
    positions = atoms.positions + np.random.default_rng(0).normal(scale=0.2, size=atoms.positions.shape)
    return st.structure(positions, atoms.cell[:], ["Si"] * 64)


def numbers_of(s, pair, cutoff, switch):
    """Soft numbers per centre from the observable (checked against ase in test_angles)."""
    observable = coordination_number(s.elements, [pair], cutoff=cutoff, switch=switch)
    spec = neighbor_spec(s, observable.rmax)
    numbers = jax.jit(lambda s: observable.numbers(s, build(s, spec))[0][:, 0])(s)
    return numbers[s.species == s.elements.index(pair.split("-")[0])]


def nearest(s, pair, count):
    """The ``count`` shortest distances from each centre, in a cubic cell."""
    a, b = (np.asarray(s.species) == s.elements.index(e) for e in pair.split("-"))
    gap = np.asarray(s.positions)[:, None] - np.asarray(s.positions)[None]
    edge = float(s.cell[0, 0])
    r = np.linalg.norm(gap - edge * np.round(gap / edge), axis=-1) + 99.0 * np.eye(len(a))
    return np.sort(r[a][:, b], axis=1)[:, :count]


def outside(values, low, high):
    return float(np.abs(np.clip(values, low, high) - values).sum())


def bonds(elements, pair, low, high, cutoff, switch):
    """(maker, violation) of a coordination restraint."""
    ends = dict(low=low, high=high)
    return (
        lambda score: coordination_restraint(score, pair, elements, **ends, cutoff=cutoff, switch=switch, fade=10.0),
        lambda s: outside(numbers_of(s, pair, cutoff, switch), low, high),
    )


def lengths(elements, pair, low, high, count):
    """(maker, violation) of a distance window."""
    return (
        lambda score: distance_window(score, pair, elements, low=low, high=high, count=count, fade=10.0),
        lambda s: outside(nearest(s, pair, count), low, high),
    )


# name: start, restraint, and the share of the violation that may be left: a random packing is frustrated (an O near five Si), a crystal is not
CASES = {
    "four O about Si": (silica, bonds(ELEMENTS, "Si-O", 4.0, 4.0, 2.1, 0.9), 0.5),
    "no lonely O": (silica, bonds(ELEMENTS, "O-O", 1.5, 99.0, 2.1, 0.9), 0.5),
    "bond lengths": (silica, lengths(ELEMENTS, "Si-O", 1.5, 1.75, 4), 0.5),
    "rattled crystal, numbers": (rattled, bonds(("Si",), "Si-Si", 4.0, 4.0, 2.9, 0.8), 0.02),
    "rattled crystal, lengths": (rattled, lengths(("Si",), "Si-Si", 2.25, 2.45, 4), 0.02),
}


@pytest.mark.parametrize("name", CASES)
def test_repeated_steps_lower_the_violation(name, quick_compile):
    start, (make, violation), left = CASES[name]
    s, sigma = start(), jnp.float32(0.2)
    score = make(ZeroScore()).fit(s)

    def step(positions, _):
        push, info = score(replace(s, positions=positions), sigma)
        return positions + sigma**2 * push, info

    positions, info = jax.jit(lambda p: jax.lax.scan(step, p, None, length=40))(s.positions)
    (key,) = info
    assert key.startswith("needed_") and info[key].shape == (40, 3)
    after = violation(replace(s, positions=positions))
    assert violation(s) > 4.0
    assert after < left * violation(s), f"{violation(s):.2f} -> {after:.2f}"


def test_coordination_push_is_the_formula_with_gradients_by_autodiff(x64, quick_compile):
    s, sigma, u = silica(6), 0.35, 0.3
    score = coordination_restraint(ZeroScore(), "Si-O", ELEMENTS, low=3.0, high=3.5, cutoff=2.0, switch=0.8, uncertainty=u, fade=0.4).fit(s)
    observable = coordination_number(ELEMENTS, ["Si-O"], cutoff=2.0, switch=0.8)

    def numbers(positions):
        moved = replace(s, positions=positions)
        return observable.numbers(moved, build(moved, score.spec))[0][:, 0]

    n, gradient = jax.jit(lambda p: (numbers(p), jax.jacrev(numbers)(p)))(s.positions)
    missing = np.where(np.asarray(s.species) == 0, np.clip(n, 3.0, 3.5) - n, 0.0)
    spread = sigma**2 / (1 + sigma**2 / 0.25)
    step = missing / (u**2 + spread * np.sum(np.asarray(gradient) ** 2, axis=(1, 2)))
    expected = 0.5 / (1 + (sigma / 0.4) ** 4) * spread / sigma**2 * np.einsum("inc,i->nc", gradient, step)
    got, _ = jax.jit(score)(s, sigma)
    np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max())
    assert np.abs(missing).max() > 0.5 and np.abs(expected).max() > 0.1


MADE = {
    "coordination": lambda s: coordination_restraint(s, "Si-O", ELEMENTS, low=3, high=4, cutoff=2.1, switch=0.9, fade=10.0),
    "window": lambda s: distance_window(s, "Si-O", ELEMENTS, low=1.5, high=1.75, count=4, fade=10.0),
    "window, all": lambda s: distance_window(s, None, ELEMENTS, low=1.9, high=2.0, count=3, fade=10.0),
}


@pytest.mark.parametrize("name", MADE)
def test_pushes_turn_with_the_structure_and_follow_the_order_of_atoms(name, x64, quick_compile):
    s, order = silica(8), np.random.default_rng(0).permutation(24)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    run = jax.jit(MADE[name](ZeroScore()).fit(s))
    push, _ = run(s, 0.3)
    moved, _ = run(replace(s, positions=(s.positions @ turn)[order], cell=s.cell @ turn, species=s.species[order]), 0.3)
    np.testing.assert_allclose(moved, (push @ turn)[order], atol=1e-9)
    np.testing.assert_allclose(jnp.sum(push, axis=0), 0.0, atol=1e-9)  # no net push
    assert np.abs(push).max() > 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: coordination_restraint(ZeroScore(), None, ("Si",), low=3, high=5, cutoff=2.9),
        lambda: coordination_restraint(ZeroScore(), "Si-Si", ("Si",), target=4, cutoff=2.9),
        lambda: distance_window(ZeroScore(), "Si-Si", ("Si",), low=2.2, high=2.5, count=4),
    ],
)
def test_nothing_moves_inside_the_window(make, quick_compile):
    from ase.build import bulk

    atoms = bulk("Si", a=5.431, cubic=True)
    s = st.structure(atoms.positions, atoms.cell[:], atoms.get_chemical_symbols())
    push, _ = jax.jit(make().fit(s))(s, jnp.float32(0.1))
    np.testing.assert_allclose(push, 0.0, atol=1e-4)


def test_restraints_stack_report_their_own_capacity_and_grow(quick_compile):
    s = silica(6)
    inner = distance_window(ZeroScore(), "Si-O", ELEMENTS, low=1.5, high=1.8, count=4).fit(s)
    inner = replace(inner, spec=dataclasses.replace(inner.spec, capacity=2))
    score = coordination_restraint(inner, "Si-O", ELEMENTS, target=4, cutoff=2.0)
    score = replace(score, spec=dataclasses.replace(score.fit(s).spec, capacity=1))
    run = jax.jit(lambda score, s: score(s, jnp.float32(0.3)))
    assert np.isnan(jax.jit(inner)(s, jnp.float32(0.3))[0]).all()
    for _ in range(3):  # the outer list is known only once the inner one suffices
        push, info = run(score, s)
        assert set(info) == {"needed_coordination_Si_O", "needed_distance_Si_O"}
        score = score.grown(info)
    assert np.isfinite(push).all()


def bond(**changes):
    return coordination_restraint(ZeroScore(), **(dict(pair="Si-O", elements=ELEMENTS, target=4, cutoff=2.0) | changes))


def window(**changes):
    return distance_window(ZeroScore(), **(dict(pair="Si-O", elements=ELEMENTS, low=1.5, high=1.8, count=4) | changes))


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: bond(pair="Si-C"), "from Si, O"),
        (lambda: bond(target=None), "needs a target"),
        (lambda: bond(low=3), "needs a target"),
        (lambda: bond(target=None, low=5, high=4), "low is 5"),
        (lambda: bond(target=-1), "low is -1"),
        (lambda: bond(target=None, low=-2), "low is -2"),
        (lambda: bond(cutoff=-2.0), "cutoff is -2.0"),
        (lambda: bond(uncertainty=0.0), "uncertainty is 0.0"),
        (lambda: bond(switch=0.0), "switch is 0.0"),
        (lambda: bond(fade=-1.0), "fade is -1.0"),
        (lambda: bond(name="pairs"), "taken"),
        (lambda: coordination_restraint(bond(), "Si-O", ELEMENTS, high=4, cutoff=2.0), "'coordination_Si_O' is taken"),
        (lambda: window(pair=("C", "O")), "from Si, O"),
        (lambda: window(low=1.9), "low is 1.9"),
        (lambda: window(low=-0.1), "low is -0.1"),
        (lambda: window(count=0), "count is 0"),
        (lambda: window(count=2.5), "count is 2.5"),
        (lambda: window(reach=1.0), "reach is 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()
