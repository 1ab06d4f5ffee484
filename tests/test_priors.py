"""Networks (counts, symmetries, gradients), the denoising loss, training, checkpoints."""

import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny as small
from ase.build import bulk
from tiny import random_parameters

from glassjax import structure as st
from glassjax._pytree import replace
from glassjax.io.atoms import from_atoms
from glassjax.neighbors import build, neighbor_spec
from glassjax.priors import cells as training_cells
from glassjax.priors import features, training
from glassjax.priors.equivariant import EquivariantNetwork
from glassjax.priors.loss import denoising_loss, random_rotation
from glassjax.priors.meshgraphnet import MeshGraphNet
from glassjax.priors.prior import Prior, load_prior, read_checkpoint, save_prior

pytestmark = pytest.mark.usefixtures("quick_compile")

TRICLINIC = np.array([[7.0, 0.3, -0.2], [2.0, 7.5, 0.4], [-2.0, 1.5, 7.2]])
TINY = np.array([[3.0, 0.0, 0.0], [0.9, 2.8, 0.0], [-0.7, 0.6, 3.1]])  # every atom meets its own images


def network_of(kind, elements=2):
    if kind == "equivariant":
        return EquivariantNetwork(elements=elements, channels=8, steerable=4, blocks=2, radial=8, cutoff=4.0)
    return MeshGraphNet(elements=elements, width=16, blocks=2, cutoff=4.0)


def mixture(n=16, cell=TRICLINIC, seed=0, elements=("Si", "O")):
    symbols = [("Si", "O")[i % 2] for i in range(n)]
    return st.random_packing(seed, symbols, cell=cell, minimum_distance=1.2, elements=elements)


def prior_of(kind, s, elements=("Si", "O"), seed=0):
    network = network_of(kind, len(elements))
    return Prior(params=random_parameters(network, s, seed), network=network, elements=tuple(elements)).fit(s, margin=14.0)


@jax.jit
def score_of(prior, s, sigma):
    return prior(s, sigma)[0]


# --- networks ---------------------------------------------------------------------------------------------------------------------------------


def test_meshgraphnet_has_the_published_number_of_parameters():
    s = st.random_packing(0, ["Si"] * 8, cell=TRICLINIC)
    network = MeshGraphNet(elements=1)
    assert (network.width, network.blocks, network.cutoff) == (200, 5, 5.0)
    graph = build(s, neighbor_spec(s, 5.0)).to_jraph(s.species, jnp.float32(0.5))
    shapes = jax.eval_shape(network.init, jax.random.key(0), graph)["params"]
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == 2_014_203


def turn(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("kind", ["equivariant", "meshgraphnet"])
def test_symmetries(x64, kind):
    """Translation, wrapping, permutation of atoms, an equal lattice; rotation and reflection for the equivariant network."""
    s = mixture()
    prior = prior_of(kind, s)
    sigma = jnp.float64(0.4)
    base = np.asarray(score_of(prior, s, sigma))
    scale = np.abs(base).max()
    assert np.isfinite(base).all() and scale > 1e-3

    def close(other, expected=base):
        np.testing.assert_allclose(score_of(prior, other, sigma), expected, atol=1e-9 * scale)

    rng = np.random.default_rng(3)
    close(dataclasses.replace(s, positions=s.positions + jnp.array([[5.3, -2.7, 14.1]])))
    close(dataclasses.replace(s, positions=s.positions + rng.integers(-2, 3, s.positions.shape) @ np.asarray(s.cell)))
    close(st.wrap(s))
    order = rng.permutation(16)
    close(dataclasses.replace(s, positions=s.positions[order], species=s.species[order]), base[order])
    for matrix in (turn(1), -turn(2), np.diag([1.0, 1.0, -1.0])):
        turned = dataclasses.replace(s, positions=s.positions @ matrix, cell=s.cell @ matrix)
        if kind == "equivariant":
            close(turned, base @ matrix)
        else:  # the published network is not equivariant: it is trained with random rotations
            assert np.abs(np.asarray(score_of(prior, turned, sigma)) - base @ matrix).max() > 1e-3 * scale
    other_cell = dataclasses.replace(s, cell=jnp.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 1]]) @ s.cell)
    np.testing.assert_allclose(score_of(prior.fit(other_cell, margin=14.0), other_cell, sigma), base, atol=1e-9 * scale)
    # species and noise level matter
    assert np.abs(score_of(prior, dataclasses.replace(s, species=1 - s.species), sigma) - base).max() > 1e-3 * scale
    assert np.abs(score_of(prior, s, jnp.float64(0.5)) - base).max() > 1e-3 * scale


@pytest.mark.parametrize("kind", ["equivariant", "meshgraphnet"])
def test_periodic_images_supercell(x64, kind):
    """A supercell has the score of its cell, copy by copy, though the cutoff reaches beyond the small cell."""
    s = mixture(n=2, cell=TINY, seed=1)
    prior = prior_of(kind, s)
    assert len(prior.spec.shifts) > 1
    small = np.asarray(score_of(prior, s, jnp.float64(0.4)))
    big = dataclasses.replace(
        s,
        positions=jnp.concatenate([s.positions, s.positions + s.cell[:1], s.positions + 2 * s.cell[:1]]),
        cell=s.cell * jnp.array([[3.0], [1.0], [1.0]]),
        species=jnp.tile(s.species, 3),
    )
    np.testing.assert_allclose(score_of(prior.fit(big, margin=14.0), big, jnp.float64(0.4)), np.tile(small, (3, 1)), atol=1e-10)


@pytest.mark.parametrize("kind", ["equivariant", "meshgraphnet"])
def test_jit_vmap_and_padding(x64, kind):
    """jit = eager, vmap = loop, one trace, and empty slots change nothing."""
    batch = [mixture(seed=k) for k in range(2)]
    prior = prior_of(kind, batch[0])
    traces = []

    @jax.jit
    def compiled(s):
        traces.append(1)
        return prior(s, jnp.float64(0.3))[0]

    loop = np.stack([compiled(s) for s in batch])
    assert len(traces) == 1
    np.testing.assert_allclose(prior(batch[0], jnp.float64(0.3))[0], loop[0], atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda s: prior(s, jnp.float64(0.3))[0]))(st.stack(batch)), loop, atol=1e-10)
    s = batch[0]
    positions = jnp.concatenate([s.positions[:3], jnp.full((4, 3), 1.0), s.positions[3:]])
    species = jnp.concatenate([s.species[:3], jnp.full(4, -1, jnp.int32), s.species[3:]])
    padded = np.asarray(compiled(dataclasses.replace(s, positions=positions, species=species)))
    np.testing.assert_array_equal(padded[3:7], 0.0)
    np.testing.assert_allclose(np.delete(padded, [3, 4, 5, 6], axis=0), loop[0], atol=1e-10)


@pytest.mark.parametrize("kind", ["equivariant", "meshgraphnet"])
@pytest.mark.parametrize("cell", [TRICLINIC, TINY], ids=["cell", "self-images"])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_gathering_gradients_equal_plain_jraph(x64, kind, cell, backend, monkeypatch):
    """The sums of each kind of device, against jraph.segment_sum and plain differentiation, in value and in the gradient of parameters and edges."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    s = mixture(n=10 if cell is TRICLINIC else 2, cell=cell, seed=2)
    prior = prior_of(kind, s)
    graph = build(s, prior.spec)
    weight = jnp.asarray(np.random.default_rng(0).normal(size=s.positions.shape))

    def value(params, displacements, tables):
        one = dataclasses.replace(graph, displacements=displacements, distances=jnp.sqrt(jnp.sum(displacements**2, axis=-1)))
        packed = one.to_jraph(s.species, jnp.float64(0.4), reverse=True, rows=tables and prior.network.in_rows)
        if not tables:
            packed = packed._replace(nodes=dict(species=s.species))
        return jnp.vdot(weight, prior.network.apply({"params": params}, packed))

    with_tables, plain = (
        jax.jit(jax.value_and_grad(lambda p, d, t=t: value(p, d, t), argnums=(0, 1)))(prior.params, graph.displacements) for t in (True, False)
    )
    for a, b in zip(jax.tree.leaves(with_tables), jax.tree.leaves(plain), strict=True):
        b = np.asarray(b)
        np.testing.assert_allclose(a, b, atol=(1e-9 if b.dtype == np.float64 else 1e-5) * max(1.0, np.abs(b).max()))


def test_blocks_of_rows_change_nothing(x64, monkeypatch):
    """The score with edges in blocks (as on CPUs for large cells, the last overlapping the one before) and all at once."""
    s = mixture(n=11, seed=4)
    prior = prior_of("equivariant", s)
    made = []
    for block in (10**9, 4 * prior.spec.capacity, 1):
        monkeypatch.setattr(features, "BLOCK", block)
        made.append(np.asarray(jax.jit(lambda s: prior(s, jnp.float64(0.4))[0])(s)))
    for other in made[1:]:
        np.testing.assert_allclose(other, made[0], atol=1e-12 * np.abs(made[0]).max())


def test_gradient_through_blocks(x64, monkeypatch):
    """Of the score with respect to the positions, blocks against all at once; in graphs without the tables for gradients."""
    s = mixture(n=11, seed=4)
    prior, weight = prior_of("equivariant", s), jnp.asarray(np.random.default_rng(0).normal(size=s.positions.shape))
    made = []
    for block in (10**9, 4 * prior.spec.capacity):
        monkeypatch.setattr(features, "BLOCK", block)
        value = lambda x: jnp.vdot(weight, prior(dataclasses.replace(s, positions=x), jnp.float64(0.4))[0])  # noqa: E731
        made.append(np.asarray(jax.jit(jax.grad(value))(s.positions)))
    np.testing.assert_allclose(made[1], made[0], atol=1e-10 * np.abs(made[0]).max())


def test_training_through_blocks(x64, monkeypatch):
    """Loss and its gradient with respect to the parameters, blocks against all at once; in graphs with the tables for gradients."""
    s = mixture(n=11, seed=4)
    prior, made = prior_of("equivariant", s), []
    for block in (10**9, 4 * prior.spec.capacity):
        monkeypatch.setattr(features, "BLOCK", block)
        value = lambda p: denoising_loss(jax.random.key(3), prior.network, p, s, jnp.float64(0.4), prior.spec)[0]  # noqa: E731
        made.append(jax.jit(jax.value_and_grad(value))(prior.params))
    for a, b in zip(*map(jax.tree.leaves, made), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("kind", ["equivariant", "meshgraphnet"])
def test_a_list_that_is_too_short_gives_nan(kind):
    """And the prior grown by what it needed gives numbers."""
    s = mixture()
    prior = prior_of(kind, s)
    short = dataclasses.replace(prior, spec=dataclasses.replace(prior.spec, capacity=3, edges=16))
    score, info = jax.jit(lambda p: p(s, jnp.float32(0.4)))(short)
    assert np.isnan(np.asarray(score)).any(axis=1).all()
    assert np.isfinite(np.asarray(jax.jit(lambda p: p(s, jnp.float32(0.4))[0])(short.grown(info)))).all()


def test_spherical_harmonics_obey_the_addition_theorem(x64):
    """Y_l(u) . Y_l(v) = P_l(u . v)."""
    rng = np.random.default_rng(0)
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 20, 3)))
    for degree, (a, b) in enumerate(zip(features.spherical_harmonics(u, 3), features.spherical_harmonics(v, 3), strict=True), start=1):
        legendre = np.polynomial.legendre.Legendre.basis(degree)
        assert a.shape == (20, 2 * degree + 1)
        np.testing.assert_allclose(np.sum(np.asarray(a) * np.asarray(b), axis=1), legendre(np.sum(u * v, axis=1)), atol=1e-12)


def test_score_is_smooth_at_the_cutoff(x64):
    """An atom that crosses the cutoff changes nothing at once (equivariant network)."""
    far = np.diag([30.0] * 3)

    def at(d):
        return st.structure([[1.0, 1, 1], [1 + d, 1, 1], [1.0, 3.0, 1.0]], far, ["Si", "O", "Si"])

    prior = prior_of("equivariant", at(3.0))
    values = [np.asarray(score_of(prior, at(d), jnp.float64(0.4))) for d in (3.9999, 4.0001)]
    assert np.abs(values[0] - values[1]).max() < 1e-6 * np.abs(values[0]).max()


def test_scores_are_no_longer_than_a_noise_can_be(x64):
    prior = prior_of("equivariant", mixture())
    s, sigma = mixture(), 0.3
    found = prior(s, sigma)[0]
    length = sigma * jnp.linalg.norm(found, axis=1)
    large = dataclasses.replace(prior, params=jax.tree.map(lambda leaf: 5.0 * leaf, prior.params))
    packed = build(s, large.spec).to_jraph(s.species, jnp.asarray(sigma), rows=True)
    raw = large.network.apply({"params": large.params}, packed)
    raw_length = sigma * jnp.linalg.norm(raw, axis=1, keepdims=True)
    assert float(length.max()) < 5.0 < float(raw_length.max())  # the first is left as it is
    np.testing.assert_allclose(prior.network.apply({"params": prior.params}, packed), found, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(large(s, sigma)[0], raw * jnp.minimum(1.0, 5.0 / raw_length), rtol=1e-6, atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(large(dataclasses.replace(s, positions=x), sigma)[0] ** 2))(s.positions)
    assert np.isfinite(gradient).all()


def test_species_order_of_structure_and_prior_may_differ(x64):
    one, other = mixture(elements=("Si", "O")), mixture(elements=("O", "Si"))
    np.testing.assert_array_equal(one.positions, other.positions)
    prior = prior_of("equivariant", one)
    np.testing.assert_allclose(score_of(prior, one, jnp.float64(0.4)), score_of(prior, other, jnp.float64(0.4)), atol=1e-12)


# --- loss -------------------------------------------------------------------------------------------------------------------------------------


def test_random_rotations_are_proper_and_uniform():
    matrices = np.asarray(jax.vmap(random_rotation)(jax.random.split(jax.random.key(0), 2000)))
    np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), np.broadcast_to(np.eye(3), matrices.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=1e-5)
    assert np.abs(matrices.mean(axis=0)).max() < 0.06  # standard error 1/sqrt(3 * 2000) = 0.013
    # Haar measure: the trace 1 + 2 cos(angle) has mean 0 and variance 1
    trace = np.trace(matrices, axis1=1, axis2=2)
    assert abs(trace.mean()) < 0.1 and abs(trace.var() - 1.0) < 0.15


@pytest.mark.parametrize("kind", ["equivariant", "meshgraphnet"])
def test_zero_network_has_loss_three(kind):
    s = mixture()
    prior = prior_of(kind, s)
    zero = jax.tree.map(jnp.zeros_like, prior.params)
    losses = jax.jit(jax.vmap(lambda k: denoising_loss(k, prior.network, zero, s, jnp.float32(0.5), prior.spec)[0]))(
        jax.random.split(jax.random.key(0), 100)
    )
    # 4800 squared normals: standard error 3 sqrt(2 / 4800) = 0.06
    assert float(jnp.mean(losses)) == pytest.approx(3.0, abs=0.25)


@dataclasses.dataclass(frozen=True)
class Wells:
    """The exact score of noise around one known structure: it denoises perfectly."""

    clean: np.ndarray
    equivariant = True
    in_rows = False

    def apply(self, params, graph):
        inbox = jax.ops.segment_sum(jnp.where(graph.edges["mask"][:, None], graph.edges["displacements"], 0.0), graph.receivers, 2)
        # two atoms, one bond: the displacement tells the difference of the two noises, and nothing more
        noise = inbox - jnp.asarray([self.clean[1] - self.clean[0], self.clean[0] - self.clean[1]], inbox.dtype)
        return noise / (2 * graph.globals**2)


def test_losses_at_some_noise_levels(monkeypatch):
    """What `denoising_loss` gives one by one; 3 for no knowledge; lists that are too short grow; single ones have no standard error."""
    cells, prior = [small.packing(seed) for seed in (1, 2, 3)], small.tiny_prior()
    zero = replace(prior, params=jax.tree.map(jnp.zeros_like, prior.params))
    (mean, error) = training.denoising_losses(zero, cells, levels=(0.3,), draws=4)[0.3]
    # |eps|^2 summed over xyz has variance 6; 12 draws of 32 atoms
    assert abs(mean - 3.0) < 4 * np.sqrt(6 / (12 * 32)) and 0 < error / np.sqrt(6 / (12 * 32)) < 3
    found = training.denoising_losses(prior, cells, levels=(0.1, 0.5), draws=2, seed=7)
    spec = training_cells.training_spec(cells, prior.network.cutoff)
    noise = [[jax.random.fold_in(jax.random.fold_in(jax.random.key(7), i), j) for j in range(2)] for i in range(3)]
    one = jax.jit(lambda key, cell: denoising_loss(key, prior.network, prior.params, cell, jnp.float32(0.5), spec)[0])
    values = np.array([[float(one(key, cell)) for key in keys] for keys, cell in zip(noise, cells, strict=True)]).mean(axis=1)
    assert found[0.5] == pytest.approx((values.mean(), values.std(ddof=1) / np.sqrt(3)), rel=1e-4)
    fewer = training.denoising_losses(prior, cells[:1], levels=(0.5,), draws=1, seed=7)[0.5]
    assert fewer[0] == pytest.approx(float(one(noise[0][0], cells[0])), rel=1e-4) and np.isnan(fewer[1])
    whole = training_cells.training_spec
    monkeypatch.setattr(training, "training_spec", lambda *a: dataclasses.replace(whole(*a), capacity=4, edges=64))
    again = training.denoising_losses(prior, cells, levels=iter((0.1, 0.5)), draws=2, seed=7)
    assert list(again) == list(found) and np.allclose(list(again.values()), list(found.values()), rtol=1e-4)
    # sizes may differ
    mixed = training.denoising_losses(zero, [cells[0], small.packing(seed=4, atoms=48)], levels=(0.3,), draws=4)[0.3]
    assert abs(mixed[0] - 3.0) < 4 * np.sqrt(6 / (4 * 80))
    wrong = (dict(structures=[]), dict(structures=cells, draws=0), dict(structures=cells, levels=(0.0,)), dict(structures=cells, levels=()))
    for options in wrong:
        with pytest.raises(ValueError, match="needs at least one of each, and levels above 0 A"):
            training.denoising_losses(prior, **options)
    with pytest.raises(ValueError, match="got structures of Ge; needs elements of the prior: Si"):
        training.denoising_losses(prior, [replace(cells[0], elements=("Ge",))])


def test_exact_score_of_a_dimer_leaves_the_unknowable_half():
    """Of 6 noise components per dimer, 3 (the relative ones) can be denoised: the loss falls from 3 to 3/2."""
    clean = np.array([[10.0, 10.0, 10.0], [14.0, 10.0, 10.0]])
    s = st.structure(clean, np.diag([30.0] * 3), ["Si", "Si"])
    spec = neighbor_spec(s, 8.0, capacity=1)
    losses = jax.vmap(lambda k: denoising_loss(k, Wells(clean), {}, s, jnp.float32(0.3), spec)[0])(jax.random.split(jax.random.key(1), 3000))
    assert float(jnp.mean(losses)) == pytest.approx(1.5, abs=5 * 1.5 * np.sqrt(2 / 9000))


@pytest.mark.parametrize("kind", ["equivariant"])
def test_padding_does_not_change_the_loss(kind):
    small, large = mixture(n=8, cell=0.8 * TRICLINIC, seed=1), mixture(n=12, seed=2)
    prior = prior_of(kind, large)
    cells = training_cells.pad([small, large], ("Si", "O"))
    assert cells.positions.shape == (2, 12, 3) and (np.asarray(cells.species[0, 8:]) == -1).all()
    spec = training_cells.training_spec([small, large], prior.network.cutoff)
    with jax.threefry_partitionable(True):  # the noise of an atom then depends on its index alone
        loss = jax.jit(lambda k, s: denoising_loss(k, prior.network, prior.params, s, jnp.float32(0.4), spec)[0])
        together = jax.jit(jax.vmap(lambda k, s: denoising_loss(k, prior.network, prior.params, s, jnp.float32(0.4), spec)[0]))
        keys = jax.random.split(jax.random.key(5), 2)
        np.testing.assert_allclose(together(keys, cells), [loss(keys[0], small), loss(keys[1], large)], rtol=1e-4)


def test_training_spec_serves_every_cell():
    cells = [mixture(n=2, cell=TINY), mixture()]
    spec = training_cells.training_spec(cells, 4.0)
    for s in cells:
        graph = build(s, spec)
        assert np.isfinite(graph.distances).all()
        own = neighbor_spec(s, 4.0, margin=14.0)
        assert set(own.shifts) <= set(spec.shifts)
        assert int(graph.needed[1]) == int(build(s, own).needed[1])


# --- training ---------------------------------------------------------------------------------------------------------------------------------


def crystal():
    return from_atoms(bulk("Si", "diamond", a=5.43, cubic=True))


SMALL = dict(elements=1, channels=8, steerable=4, blocks=1, radial=8, cutoff=3.0)


def options(**changes):
    return training.TrainingOptions(**dict(minutes=10.0, steps=200, batch=4, learning_rate=1e-2, seed=1) | changes)


def train(out, **changes):
    resume, report = changes.pop("resume", False), changes.pop("report", None)
    network = EquivariantNetwork(**SMALL)
    return training.train([crystal()], out=out, network=network, elements=("Si",), options=options(**changes), resume=resume, report=report)


def arrays_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_training_learns_and_resumes_exactly(tmp_path):
    whole = train(tmp_path / "whole.npz")

    class Cut(Exception):
        pass

    def cut(step, seconds, losses):
        raise Cut

    with pytest.raises(Cut):
        train(tmp_path / "parts.npz", report=cut, checkpoint_every=0.0)  # after step 50, the first row of the learning curve
    header, _ = read_checkpoint(tmp_path / "parts.train.npz")
    assert 0 < header["step"] < 200
    parts = train(tmp_path / "parts.npz", resume=True)
    arrays_equal(whole.params, parts.params)
    arrays_equal(*[{k: v for k, v in read_checkpoint(tmp_path / f"{n}.train.npz")[1].items()} for n in ("whole", "parts")])

    # what it learned: lower loss than the untrained network (3 at once without knowledge), on noise it did not see
    s, spec = crystal(), neighbor_spec(crystal(), 3.0, margin=12.0)
    keys = jax.random.split(jax.random.key(99), 64)
    loss = jax.jit(lambda p: jnp.mean(jax.vmap(lambda k: denoising_loss(k, whole.network, p, s, jnp.float32(0.3), spec)[0])(keys)))
    trained = float(loss(whole.params))
    assert trained < 0.85 * float(loss(jax.tree.map(jnp.zeros_like, whole.params)))
    rows = (tmp_path / "whole.csv").read_text().splitlines()
    assert rows[0].startswith("step,seconds,learning_rate") and rows[1].startswith("50,")


def test_resume_refuses_another_network(tmp_path):
    state = tmp_path / "a.train.npz"
    from glassjax.archive import write_arrays
    from glassjax.priors.prior import describe_network

    write_arrays(state, dict(network=describe_network(MeshGraphNet(elements=1)), elements=["Si"], step=3, elapsed=1.0), {})
    with pytest.raises(ValueError, match="another network"):
        train(tmp_path / "a.npz", resume=True)


def test_training_refuses_what_it_cannot_use(tmp_path):
    network = EquivariantNetwork(**SMALL)
    with pytest.raises(ValueError, match="no training structures"):
        training.train([], out=tmp_path / "x.npz", network=network, elements=("Si",))
    with pytest.raises(ValueError, match="O"):
        training.train([mixture()], out=tmp_path / "x.npz", network=network, elements=("Si",))
    with pytest.raises(ValueError, match="got floor = -0.1 A; needs 0"):
        train(tmp_path / "x.npz", floor=-0.1)
    with pytest.raises(ValueError, match="got learning_rate = 0.0; needs a positive"):
        train(tmp_path / "x.npz", learning_rate=0.0)
    for low, high in ((0.3, 0.1), (0.0, 1.6), (np.nan, 1.6), (0.03, np.inf)):
        with pytest.raises(ValueError, match=f"got noise levels {low} to {high} A; needs 0 < sigma_min < sigma_max, both finite"):
            train(tmp_path / "x.npz", sigma_min=low, sigma_max=high)


def test_resume_refuses_what_the_card_states_for_all_steps(tmp_path):
    train(tmp_path / "a.npz", steps=0)
    for change in (dict(floor=0.0), dict(strain=0.03), dict(levels="linear"), dict(sigma_max=0.9)):
        ((name, value),) = change.items()
        with pytest.raises(ValueError, match=f"was trained with {name} = .*; got {value}; pass the same"):
            train(tmp_path / "a.npz", steps=0, resume=True, **change)
    train(tmp_path / "a.npz", steps=0, resume=True, learning_rate=1e-3)


def test_noise_below_the_floor_counts_more():
    sigma, weight = training._levels(options(), jax.random.key(0), 64)
    np.testing.assert_allclose(weight, np.minimum(4.0, 1 + (0.1 / np.asarray(sigma)) ** 2), rtol=1e-5)
    same, alike = training._levels(options(floor=0.0), jax.random.key(0), 64)
    np.testing.assert_array_equal(same, sigma)
    np.testing.assert_array_equal(alike, 1.0)


def tiny(elements, seed):
    network = EquivariantNetwork(**SMALL | dict(elements=len(elements)))
    s = st.random_packing(0, list(elements) * 4, cell=TRICLINIC, minimum_distance=1.2, elements=elements)
    return Prior(params=random_parameters(network, s, seed), network=network, elements=elements)


def test_training_begins_from_another_prior(tmp_path):
    first = tiny(("Si", "O"), seed=3)
    other = tiny(("O", "C", "Si"), seed=4)
    took = training.transferred(first, other.params, EquivariantNetwork(**SMALL | dict(elements=3, cutoff=2.5)), other.elements)
    known, random = first.params["Embed_0"]["embedding"], other.params["Embed_0"]["embedding"]
    np.testing.assert_allclose(took["Embed_0"]["embedding"], [known[1], known.mean(0) + random[1], known[0]], rtol=1e-6)
    arrays_equal({k: v for k, v in took.items() if k != "Embed_0"}, {k: v for k, v in first.params.items() if k != "Embed_0"})
    # no step: what was begun from; the same elements in another order give the same score
    network = EquivariantNetwork(**SMALL | dict(elements=2))
    begun = training.train([mixture()], out=tmp_path / "b.npz", network=network, elements=("O", "Si"), options=options(steps=0), start=first)
    s = mixture()
    np.testing.assert_allclose(begun.fit(s)(s, 0.3)[0], first.fit(s)(s, 0.3)[0], atol=1e-5)
    other = EquivariantNetwork(**SMALL | dict(channels=16))
    with pytest.raises(ValueError, match="got a prior to start from with the network .*; needs .*; take the same"):
        training.train([crystal()], out=tmp_path / "c.npz", network=other, elements=("Si",), options=options(steps=0), start=first)
    assert not (tmp_path / "c.npz").exists()
    meshgraphnet = dataclasses.replace(first, network=MeshGraphNet(elements=2, width=8, blocks=1))
    with pytest.raises(ValueError, match="it has no embedding"):
        training.transferred(meshgraphnet, {}, MeshGraphNet(elements=1, width=8, blocks=1), ("Si",))


def test_shortest_distances():
    cell = crystal()
    defect = dataclasses.replace(cell, positions=cell.positions.at[0].add(jnp.array([0.3, 0.3, 0.3])))
    bond = 5.43 * 3**0.5 / 4
    assert training_cells.shortest_distances([cell, cell, defect]) == {"Si-Si": round(bond - 0.3 * 3**0.5, 3)}
    assert training_cells.shortest_distances([cell, cell, defect], typical=True) == {"Si-Si": round(bond, 3)}


DATA_PARALLEL = """
import sys
import jax, numpy as np
jax.config.update("jax_disable_most_optimizations", True)
sys.path.insert(0, {tests!r})
import test_priors as t
devices = jax.local_devices()
assert len(devices) == 2, devices
two = t.train({folder!r} + "/two.npz", steps=4)
jax.local_devices = lambda: devices[:1]
one = t.train({folder!r} + "/one.npz", steps=4)
worst = max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params)))
print("worst", worst)
"""


def test_two_devices_train_as_one(tmp_path):
    """Four steps; Adam moves a parameter by about the learning rate (2e-4 here) whatever the gradient, so 1e-5 is a real test."""
    code = textwrap.dedent(DATA_PARALLEL.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split("worst")[1]) < 1e-5


# --- checkpoints ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["equivariant", "meshgraphnet"])
def test_checkpoint_round_trip(tmp_path, kind):
    s = mixture()
    prior = dataclasses.replace(prior_of(kind, s), card='{"made_by": "a test"}')
    save_prior(prior, tmp_path / "p.npz")
    back = load_prior(tmp_path / "p.npz")
    assert (back.network, back.elements, back.card) == (prior.network, prior.elements, prior.card)
    arrays_equal(jax.device_get(back.params), jax.device_get(prior.params))
    assert not list(tmp_path.glob("*.part"))


def test_corrupted_checkpoints(tmp_path):
    """Truncated anywhere or with a byte changed: a ValueError that names the file, never another error."""
    path = tmp_path / "p.npz"
    save_prior(prior_of("equivariant", mixture()), path)
    good, whole = path.read_bytes(), load_prior(path)
    rng = np.random.default_rng(0)
    for length in (0, 10, len(good) // 2, len(good) - 5):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="p.npz"):
            load_prior(path)
    path.write_bytes(rng.bytes(2000))
    with pytest.raises(ValueError, match="p.npz"):
        load_prior(path)
    for position in rng.integers(0, len(good), 150):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        try:
            back = load_prior(path)
        except ValueError:
            continue
        arrays_equal(jax.device_get(back.params), jax.device_get(whole.params))  # a byte that does not matter (a time stamp)


def test_other_files_and_names(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz"):
        load_prior(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="nosuch"):
        load_prior("nosuch")


def test_unknown_element():
    prior = prior_of("equivariant", mixture())
    with pytest.raises(ValueError, match="element C is not in the prior"):
        prior.fit(st.structure([[0.0, 0, 0]], np.diag([5.0] * 3), ["C"]))
