"""Surrogates of spectra: symmetries, the observable's derivatives and their damping, training, files."""

import argparse
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glassjax import structure as st
from glassjax.neighbors import build, neighbor_spec
from glassjax.priors.prior import load_prior, shipped_priors
from glassjax.surrogates import command, loss, training
from glassjax.surrogates.evaluation import evaluate
from glassjax.surrogates.networks import InvariantNetwork, SpecNet
from glassjax.surrogates.observable import spectrum
from glassjax.surrogates.surrogate import Surrogate, load_surrogate, save_surrogate, shipped_surrogates

pytestmark = pytest.mark.usefixtures("quick_compile")

CELL = np.array([[6.4, 0.3, -0.2], [0.4, 6.1, 0.5], [-0.3, 0.2, 6.6]])
POINTS = 12
INVARIANT = InvariantNetwork(elements=2, channels=8, steerable=4, blocks=2, cutoff=3.0, radial=6, outputs=5)
SPECNET = SpecNet(elements=2, width=8, blocks=1, cutoff=3.0, outputs=POINTS)


def packing(seed=0, n=10, elements=("Si", "O")):
    return st.random_packing(seed, ["Si", "O"] * (n // 2), cell=CELL, minimum_distance=1.3, elements=elements)


def surrogate_of(network=INVARIANT, members=2, seed=0, scale=1.0):
    """Random networks."""
    s = packing()
    rng = np.random.default_rng(seed)
    mean, basis = loss.principal_components(rng.normal(size=(50, 5)) @ rng.normal(size=(5, POINTS)), share=1.0 - 1e-9)
    packed = build(s, neighbor_spec(s, network.cutoff, margin=14.0)).to_jraph(s.species, jnp.float32(0.01))
    shapes = jax.eval_shape(network.init, jax.random.key(0), packed)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=(members, *leaf.shape)) / np.sqrt(leaf.shape[0]), leaf.dtype), shapes)
    return Surrogate(
        params=params,
        mean=jnp.asarray(mean),
        basis=jnp.asarray(basis[:5]),
        x=jnp.arange(float(POINTS)),
        scale=jnp.asarray(scale),
        sigma=jnp.asarray(0.01),
        network=network,
        elements=("Si", "O"),
        absorber="Si",
    )


# --- spectra of sites -------------------------------------------------------------------------------------------------------------------------


def test_sites_follow_permutation_lattice_and_rotation(x64):
    s, surrogate = packing(), surrogate_of()
    spec = neighbor_spec(s, 3.0, margin=14.0)
    sites = jax.jit(lambda one: surrogate.sites(one, spec))
    spectra, gap = sites(s)
    order = np.random.default_rng(1).permutation(10)
    permuted = sites(dataclasses.replace(s, positions=s.positions[order], species=s.species[order]))
    np.testing.assert_allclose(permuted[0], spectra[order], atol=1e-9)
    np.testing.assert_allclose(permuted[1], gap[order], atol=1e-9)
    matrix, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    for turned in (matrix, -matrix):
        moved = dataclasses.replace(s, positions=(s.positions + 1.7) @ turned, cell=s.cell @ turned)
        np.testing.assert_allclose(sites(moved)[0], spectra, atol=1e-9)
    # only silicon absorbs
    silicon = np.asarray(s.species) == 0
    assert (np.abs(spectra[~silicon]) == 0).all() and (gap[~silicon] == 0).all() and (gap[silicon] > 0).all()
    other = packing(elements=("O", "Si"))
    np.testing.assert_array_equal(other.positions, s.positions)
    np.testing.assert_allclose(sites(other)[0], spectra, atol=1e-9)


def test_disagreement_is_the_deviation_of_the_members(x64):
    s, surrogate = packing(), surrogate_of(members=3)
    single = [dataclasses.replace(surrogate, params=jax.tree.map(lambda a, m=m: a[m : m + 1], surrogate.params)) for m in range(3)]
    spec = neighbor_spec(s, 3.0, margin=14.0)
    sites = jax.jit(lambda one: one.sites(s, spec))
    each = np.stack([np.asarray(sites(one)[0]) for one in single])
    spectra, gap = sites(surrogate)
    np.testing.assert_allclose(spectra, each.mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(gap, np.sqrt(each.var(axis=0, ddof=1).mean(axis=1)), atol=1e-10)
    assert (np.asarray(sites(single[0])[1]) == 0).all()


# --- the observable ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [INVARIANT, SPECNET], ids=["invariant", "specnet"])
def test_linearize_against_finite_differences(x64, network):
    """With full trust and all directions of an invariant network the Jacobian is the derivative of the curve; SpecNet's is its projection."""
    s = packing()
    x = np.linspace(0.3, POINTS - 1.2, 9)
    observable = spectrum(surrogate_of(network, scale=1e9), x, components=5).fit(s, margin=14.0)
    curve, jacobian, strain = jax.jit(lambda o, one: o.linearize(one, build(one, o.spec)))(observable, s)
    full = dataclasses.replace(observable, rows=jnp.eye(POINTS), x=jnp.arange(float(POINTS)))
    unit = np.linalg.svd(np.asarray(observable.surrogate.basis), full_matrices=False)[2]
    project = np.asarray(observable.rows) @ unit.T @ unit
    value = jax.jit(lambda one: full(one))
    np.testing.assert_allclose(observable.rows @ value(s), curve, atol=1e-12)
    rng = np.random.default_rng(0)
    step = 1e-5
    for push in rng.normal(size=(2, *s.positions.shape)):
        ends = [value(dataclasses.replace(s, positions=s.positions + sign * step * push)) for sign in (1, -1)]
        slope = project @ np.asarray(ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.einsum("ncm,nc->m", jacobian, push), slope, atol=1e-6 * np.abs(slope).max())
    ends = [value(dataclasses.replace(s, positions=s.positions * np.exp(t), cell=s.cell * np.exp(t))) for t in (step, -step)]
    slope = project @ np.asarray(ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(strain, slope, atol=1e-6 * np.abs(slope).max())
    np.testing.assert_allclose(np.asarray(jacobian).sum(axis=0), 0.0, atol=1e-10)  # translation


def test_damping_fades_the_derivative_where_members_disagree(x64):
    s = packing()
    free = spectrum(surrogate_of(scale=1e9), components=5).fit(s, margin=14.0)
    sites = jax.jit(lambda p: free.surrogate.sites(dataclasses.replace(s, positions=p), free.spec))
    gap = np.asarray(sites(s.positions)[1])
    scale = float(np.median(gap[gap > 0]))
    damped = dataclasses.replace(free, surrogate=dataclasses.replace(free.surrogate, scale=jnp.asarray(scale)))
    trust = np.where(np.asarray(s.species) == 0, 1 / (1 + (gap / scale) ** 2), 0.0)
    linearize = jax.jit(lambda o, one: o.linearize(one, build(one, o.spec)))
    curve, jacobian, _ = linearize(damped, s)
    np.testing.assert_allclose(curve, linearize(free, s)[0], atol=1e-12)  # the curve itself is not damped
    # per site: the derivative of its spectrum, weighted with its trust
    rows = jax.jit(jax.jacrev(lambda p: sites(p)[0]))(s.positions)
    np.testing.assert_allclose(jacobian, np.einsum("i,imnc->ncm", trust / 5, rows), atol=1e-9)
    back = jax.jit(jax.grad(lambda p: damped(dataclasses.replace(s, positions=p))[3]))(s.positions)
    np.testing.assert_allclose(back, jacobian[..., 3], atol=1e-9)
    # identical members agree, so nothing fades
    one = free.surrogate
    same = dataclasses.replace(one, params=jax.tree.map(lambda a: a[jnp.array([0, 0])], one.params), scale=jnp.asarray(1e-3))
    full = dataclasses.replace(free, surrogate=dataclasses.replace(same, scale=jnp.asarray(1e9)))
    np.testing.assert_allclose(linearize(dataclasses.replace(free, surrogate=same), s)[1], linearize(full, s)[1], atol=1e-12)


def test_overflow_is_nan():
    s = packing()
    observable = spectrum(surrogate_of(), components=2)
    small = dataclasses.replace(observable, spec=dataclasses.replace(observable.fit(s).spec, capacity=2))
    plain, (curve, jacobian, strain) = jax.jit(lambda one: (small(one), small.linearize(one, build(one, small.spec))))(s)
    assert np.isnan(plain).all() and np.isnan(curve).all() and np.isnan(jacobian).any() and np.isnan(strain).any()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(x=[3.0, 2.0]), "ascending"),
        (dict(x=[0.0, 40.0]), "reaches from 0 to 11"),
        (dict(components=0), "components"),
        (dict(elements=("Si", "C")), "elements Si, C"),
        (dict(elements=("O",)), "needs Si"),
    ],
)
def test_spectrum_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        spectrum(surrogate_of(), **options)


def test_unknown_element():
    with pytest.raises(ValueError, match="got element C"):
        surrogate_of().sites(st.structure([[0.0, 0, 0]], np.diag([7.0] * 3), ["C"]))


# --- training ---------------------------------------------------------------------------------------------------------------------------------


def cells_and_labels(count=4):
    """Spectra that depend on the number of close neighbours: a peak whose place says it."""
    cells = [packing(seed) for seed in range(count)]
    labels = []
    for s in cells:
        gap = np.asarray(s.positions)[None] - np.asarray(s.positions)[:, None]
        gap = gap - np.round(gap @ np.linalg.inv(CELL)) @ CELL
        r = np.linalg.norm(gap, axis=-1) + 10 * np.eye(10)
        crowd = np.exp(-((r / 2.0) ** 4)).sum(axis=1)
        labels.append(np.exp(-0.5 * ((np.arange(POINTS)[None] - 3 - 2 * crowd[:, None]) / 2.0) ** 2))
    return cells, labels


def train(out, network=INVARIANT, resume=False, report=None, **changes):
    cells, labels = cells_and_labels()
    options = training.SurrogateOptions(
        **dict(minutes=10.0, steps=100, members=2, folds=2, learning_rate=1e-2, review_every=20, sigma_max=0.1, decay=0.95) | changes
    )
    return training.train_surrogate(
        cells, labels, out=out, elements=("Si", "O"), absorber="Si", network=network, options=options, resume=resume, report=report
    )


def test_training_learns_and_resumes_exactly(tmp_path):
    whole = train(tmp_path / "whole.npz")

    class Cut(Exception):
        pass

    def cut(step, seconds, losses):
        raise Cut

    with pytest.raises(Cut):
        train(tmp_path / "parts.npz", report=cut, checkpoint_every=0.0)
    parts = train(tmp_path / "parts.npz", resume=True)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(a, b)
    cells, labels = cells_and_labels()
    errors = evaluate(whole, cells, labels)
    assert errors["site_error"] < 0.7 * errors["average_site_error"]
    assert len(errors["cell_error"]) == 4 and -1 <= errors["rank_correlation"] <= 1
    card = json.loads(whole.card)
    assert card["steps"] == 100 and len(card["left_out_error"]) == 2 and card["scale"] == pytest.approx(float(whole.scale))
    with pytest.raises(ValueError, match="members"):
        train(tmp_path / "parts.npz", resume=True, members=3)


def test_specnet_trains(tmp_path):
    surrogate = train(tmp_path / "s.npz", SPECNET, steps=40)
    assert surrogate.network.outputs == POINTS
    cells, labels = cells_and_labels()
    errors = evaluate(surrogate, cells, labels)
    assert np.isfinite(errors["site_error"]) and errors["site_error"] < 1.2 * errors["average_site_error"]


def test_members_leave_different_cells_out():
    cells, labels = cells_and_labels(6)
    problem = training._Problem(cells, labels, INVARIANT, ("Si", "O"), "Si", training.SurrogateOptions(members=3, folds=3), None)
    assert sorted(np.concatenate(problem.out).tolist()) == list(range(6))
    assert all(not set(out) & set(kept) for out, kept in zip(problem.out, problem.kept, strict=True))


def test_relabel_replaces_the_labels():
    """With zero outputs the loss is the mean square of the labels about the mean, in units of the variance; relabel decides which labels."""
    cells, labels = cells_and_labels(2)
    problem = training._Problem(cells, labels, INVARIANT, ("Si", "O"), "Si", training.SurrogateOptions(members=2, folds=2), None)
    zero = jax.tree.map(lambda a: jnp.zeros_like(a[0]), problem.initial()["params"])
    known = dict(mean=problem.mean, basis=problem.basis, chosen=problem.chosen[0])

    def error(relabel):
        given = (problem.network, zero, cells[0], problem.labels[0], jnp.float32(0.1), problem.spec)
        return float(loss.spectrum_loss(jax.random.key(0), *given, **known, relabel=relabel)[0])

    silicon = np.asarray(problem.chosen[0])
    expected = np.sum((labels[0][silicon] - np.asarray(problem.mean)) ** 2) / silicon.sum() / np.sum(np.asarray(problem.basis) ** 2)
    assert error(None) == pytest.approx(expected, rel=1e-4)
    assert error(lambda s: jnp.broadcast_to(problem.mean, (10, POINTS))) == pytest.approx(0.0, abs=1e-8)


def test_principal_components_hold_the_variance():
    rng = np.random.default_rng(0)
    spectra = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 20)) + 1e-3 * rng.normal(size=(400, 20))
    mean, basis = loss.principal_components(spectra)
    assert 2 <= len(basis) <= 3
    np.testing.assert_allclose(mean, spectra.mean(axis=0))
    assert np.sum(basis**2) >= 0.999 * spectra.var(axis=0).sum()
    gram = basis @ basis.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9 * gram.max())


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(labels=lambda y: y[:-1]), "sets of spectra"),
        (dict(labels=lambda y: [y[0][:-1], *y[1:]]), "for cell 0"),
        (dict(labels=lambda y: [*y[:-1], np.full_like(y[-1], np.nan)]), "NaN or infinity in the spectra of cell 3"),
        (dict(absorber="C"), "absorber 'C'"),
        (dict(kind="xps"), "kind 'xps'"),
        (dict(options=training.SurrogateOptions(sigma_min=0.5, sigma_max=0.1)), "sigma_min"),
        (dict(options=training.SurrogateOptions(folds=9)), "9 folds"),
    ],
)
def test_training_refuses(tmp_path, change, message):
    cells, labels = cells_and_labels()
    given = dict(out=tmp_path / "x.npz", elements=("Si", "O"), absorber="Si", network=INVARIANT) | {k: v for k, v in change.items() if k != "labels"}
    with pytest.raises(ValueError, match=message):
        training.train_surrogate(cells, change.get("labels", list)(labels), **given)
    with pytest.raises(ValueError, match="no training structures"):
        training.train_surrogate([], [], **given)


# --- files and the command --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [INVARIANT, SPECNET], ids=["invariant", "specnet"])
def test_file_round_trip(tmp_path, network):
    surrogate = dataclasses.replace(surrogate_of(network), card='{"made_by": "a test"}')
    save_surrogate(surrogate, tmp_path / "s.npz")
    back = load_surrogate(tmp_path / "s.npz")
    assert jax.tree.structure(back) == jax.tree.structure(surrogate)
    for a, b in zip(jax.tree.leaves(surrogate), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "s.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match="s.npz"):
        load_surrogate(tmp_path / "s.npz")


def test_other_files_and_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="nosuch"):
        load_surrogate("nosuch")
    with pytest.raises(ValueError, match="format"):
        load_surrogate(shipped_priors()["silicon"])
    for name in shipped_surrogates():
        assert load_surrogate(name).members >= 1


@pytest.mark.parametrize(
    "name, symbols, edge, expected",
    [("silicon", ["Si"] * 32, 8.7, 276.1625), ("silica", ["Si", "O", "O"] * 8, 7.2, 239.2840)],
)
def test_shipped_priors_score_as_before_the_bodies_were_shared(name, symbols, edge, expected):
    """Sum of the absolute scores, recorded before `EquivariantBody` was taken out of `EquivariantNetwork`."""
    s = st.random_packing(0, symbols, cell=np.diag([edge] * 3), minimum_distance=1.4)
    prior = load_prior(name).fit(s, margin=12.0)
    score = jax.jit(lambda one: prior(one, jnp.float32(0.3))[0])(s)
    assert float(jnp.abs(score).sum()) == pytest.approx(expected, rel=1e-4)


def written(folder):
    from ase.io import write

    from glassjax.io.atoms import to_atoms

    cells, labels = cells_and_labels()
    write(folder / "cells.extxyz", [to_atoms(s, dict(name=f"cell_{i}")) for i, s in enumerate(cells)])
    np.savez(folder / "labels.npz", xanes=np.stack(labels))
    return [str(folder / "cells.extxyz"), "--labels", str(folder / "labels.npz"), "--out", str(folder / "s.npz")]


def parsed(words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_command_trains_and_judges(tmp_path, capsys):
    words = [*written(tmp_path), "--array", "xanes", "--hold-out", "cell_3", "--cutoff", "3", "--steps", "3", "--members", "2", "--folds", "3"]
    options = parsed(words)
    assert command.train_surrogate(options) == 0
    surrogate = load_surrogate(tmp_path / "s.npz")
    card = json.loads(surrogate.card)
    assert card["held_out"] == ["cell_3"] and card["cells"] == 3 and len(card["held_out_errors"]["cell_error"]) == 1
    assert surrogate.elements == ("Si", "O") and surrogate.absorber == "Si"
    with pytest.raises(ValueError, match="already there"):
        command.train_surrogate(options)


def test_command_refuses(tmp_path):
    words = written(tmp_path)
    with pytest.raises(ValueError, match="needs 'other'"):
        command.train_surrogate(parsed([*words, "--array", "other"]))
    with pytest.raises(ValueError, match="hold out"):
        command.train_surrogate(parsed([*words, "--array", "xanes", "--hold-out", "nobody"]))
    np.savez(tmp_path / "labels.npz", xanes=np.zeros((2, 10, POINTS)))
    with pytest.raises(ValueError, match="frames, atoms, points"):
        command.train_surrogate(parsed([*words, "--array", "xanes"]))
    with pytest.raises(FileNotFoundError, match="nothing.npz"):
        command.train_surrogate(parsed([words[0], "--labels", str(tmp_path / "nothing.npz"), "--out", words[-1], "--array", "xanes"]))
    with pytest.raises(ValueError, match="ends in .npz"):
        command.train_surrogate(parsed([*words[:-1], "x.dat", "--array", "xanes"]))


def test_labels_of_feff_are_read_as_they_are_written(tmp_path):
    """The file of `glassjax label` gives spectra, points, absorber, edge and kind; a site on which FEFF failed is refused by name."""
    import ase

    from glassjax.feff import LabelSettings
    from glassjax.labelling import Labels, save_labels

    atoms = ase.Atoms("SiOSi", positions=[[0, 0, 0], [1.6, 0, 0], [3.2, 0, 0]], cell=[8, 8, 8], pbc=True)
    atoms.write(tmp_path / "cell.extxyz")
    k = np.arange(1, 41) * 0.05
    made = dict(settings=LabelSettings(element="Si"), program="test", sites=[np.array([0, 2])], k=k, fermi_level=[np.zeros(2)])
    chi = np.stack([np.sin(k), np.cos(k)])
    save_labels(tmp_path / "labels.npz", Labels(**made, chi=[chi]))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = parser.parse_args([str(tmp_path / "cell.extxyz"), "--labels", str(tmp_path / "labels.npz"), "--out", str(tmp_path / "s.npz")])
    _, labels, x = command._read(options)
    np.testing.assert_allclose(labels[0][[0, 2]], chi, atol=1e-6)
    np.testing.assert_allclose(x, k)
    assert (labels[0][1] == 0).all() and (options.absorber, options.edge, options.kind, options.unit) == ("Si", "K", "exafs", "1/A")
    save_labels(tmp_path / "labels.npz", Labels(**made, chi=[chi * np.array([[1.0], [np.nan]])], failures=[(0, 2, "no phase.pad")]))
    options.array = None
    with pytest.raises(ValueError, match="site 2 of frame 0"):
        command._read(options)
