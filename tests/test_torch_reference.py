"""The PyTorch reference of benchmarks/torch_reference against glassjax: same weights, same noise, same target, same numbers. Skips without torch."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glassjax import structure as st
from glassjax._pytree import replace
from glassjax.elements import neutron_length
from glassjax.neighbors import build, neighbor_spec
from glassjax.observables import pair_distribution
from glassjax.priors.meshgraphnet import MeshGraphNet
from glassjax.priors.prior import Prior, save_prior
from glassjax.protocols import protocol, stages
from glassjax.replica import advance, start
from glassjax.targets import target

torch = pytest.importorskip("torch", reason="the PyTorch reference needs torch: pip install -e '.[bench]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from torch_reference import convert, graph, sampler, spectra  # noqa: E402

SLANTED = np.array([[7.0, 0.3, -0.2], [2.0, 7.5, 0.4], [-2.0, 1.5, 7.2]])
SMALL = np.array([[3.0, 0.0, 0.0], [0.9, 2.8, 0.0], [-0.7, 0.6, 3.1]])  # every atom meets its own images
R = np.linspace(0.2, 6.0, 30)
SILICON = 0.0493  # atoms per A^3
RUN = np.linspace(1.0, 6.0, 26)  # of the runs: bins below 1 A weigh as 1/r^2 and double a difference at every step
STRENGTH = 10.0  # of the gradient: moves atoms by tenths of an angstrom in the few steps here


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """flax and the networks rely on rank promotion; one thread, and little optimisation where values are all that counts."""
    torch.set_num_threads(1)
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_rank_promotion("allow"):
        yield
    jax.config.update("jax_disable_most_optimizations", before)


def mixture(cell=SLANTED, n=16, seed=0):
    symbols = [("Si", "O")[i % 2] for i in range(n)]
    return st.random_packing(seed, symbols, cell=cell, minimum_distance=1.2 if n > 4 else 0.5, elements=("Si", "O"))


def silicon(seed, atoms=32):
    return st.random_packing(seed, ["Si"] * atoms, number_density=SILICON, minimum_distance=2.0)


def prior_of(s, *, width=16, blocks=2, cutoff=4.0, seed=0):
    network = MeshGraphNet(elements=len(s.elements), width=width, blocks=blocks, cutoff=cutoff)
    spec = neighbor_spec(s, cutoff, margin=14.0)
    shapes = jax.eval_shape(lambda key: network.init(key, build(s, spec).to_jraph(s.species, jnp.float32(0.5))), jax.random.key(0))["params"]
    rng = np.random.default_rng(seed)

    def draw(path, leaf):  # biases and scales too: their usual 0 and 1 hide mistakes
        size = leaf.shape[0] ** -0.5 if leaf.ndim == 2 else 0.1
        return jnp.asarray(rng.normal(size=leaf.shape) * size + (path[-1].key == "scale"), jnp.result_type(float))

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    return Prior(params=params, network=network, elements=s.elements).fit(s, margin=14.0)


def tensor(array, dtype=torch.float32):
    return torch.as_tensor(np.array(array)).to(dtype)


def torch_score(prior, s, sigma, dtype=torch.float32):
    """Score [n, 3] of one structure by the reference."""
    one = sampler.ReverseSDE(convert.from_prior(prior, dtype=dtype), tensor(s.species, torch.long), tensor(s.cell, dtype))
    return one.score(tensor(s.positions, dtype)[None], torch.tensor(sigma, dtype=dtype))[0].numpy()


def assert_same_edges(s, ours):
    theirs = graph.radius_graph(tensor(s.positions)[None], tensor(s.cell), 4.0, graph.images(tensor(s.cell), 4.0))
    mask = np.asarray(ours.mask)
    assert mask.sum() == len(theirs.distances)
    listed = np.column_stack([np.where(mask)[0], np.asarray(ours.neighbors)[mask], np.asarray(ours.displacements)[mask]])
    found = np.column_stack([theirs.receivers, theirs.senders, theirs.displacements])
    listed, found = (table[np.lexsort(np.round(table, 3).T)] for table in (listed, found))
    np.testing.assert_allclose(listed, found, atol=1e-4)


jax_score = jax.jit(lambda prior, s, sigma: prior(s, sigma)[0])


@pytest.mark.parametrize("cell", [SLANTED, SMALL], ids=["slanted", "small"])
def test_graph_and_network_are_the_same(cell):
    s = mixture(cell, 16 if cell is SLANTED else 3)
    prior = prior_of(s, blocks=2 if cell is SLANTED else 1)
    assert_same_edges(s, jax.jit(build, static_argnums=1)(s, prior.spec))
    for sigma in (0.8, 0.05):
        ours, theirs = np.asarray(jax_score(prior, s, np.float32(sigma))), torch_score(prior, s, sigma)
        print("largest difference of sigma s:", np.abs(ours - theirs).max() * sigma, "of", np.abs(ours).max() * sigma)
        assert np.abs(ours).max() * sigma > 0.1
        assert np.abs(ours - theirs).max() * sigma < 1e-5


def test_network_is_the_same_in_float64(x64):
    s = mixture()
    prior = prior_of(s, blocks=1)
    assert s.positions.dtype == prior.params["MLP_0"]["Dense_0"]["kernel"].dtype == jnp.float64
    assert np.abs(np.asarray(jax_score(prior, s, 0.3)) - torch_score(prior, s, 0.3, torch.float64)).max() < 1e-11


def test_published_network_from_a_checkpoint(tmp_path):
    """Width 200 and 5 blocks, through a file: 2,014,203 weights and the same score."""
    s = silicon(3, 8)
    prior = prior_of(s, width=200, blocks=5, cutoff=5.0)
    save_prior(prior, tmp_path / "prior.npz")
    network = convert.from_checkpoint(tmp_path / "prior.npz")
    assert sum(p.numel() for p in network.parameters()) == 2_014_203
    one = sampler.ReverseSDE(network, tensor(s.species, torch.long), tensor(s.cell))
    theirs = one.score(tensor(s.positions)[None], torch.tensor(0.4))[0].numpy()
    assert np.abs(np.asarray(jax_score(prior, s, np.float32(0.4))) - theirs).max() * 0.4 < 1e-5


def test_weights_of_another_network_are_refused():
    prior = prior_of(mixture())
    with pytest.raises(ValueError, match="blocks"):
        convert.from_params(prior.params, elements=2, width=16, blocks=3)
    with pytest.raises(ValueError, match="width"):
        convert.from_params(prior.params, elements=2, width=32, blocks=2)


@pytest.mark.parametrize("cell", [SLANTED, SMALL], ids=["slanted", "small"])
def test_distribution_is_the_same(cell):
    s = mixture(cell, 16 if cell is SLANTED else 3)
    lengths, r = [neutron_length(e) for e in s.symbols], R if cell is SLANTED else R[R < 3.0]
    ours = jax.jit(lambda one, s: one(s))(pair_distribution(r, s.symbols, weights="neutron").fit(s, margin=14.0), s)
    for near in (False, True):
        theirs = spectra.PairDistribution(r, tensor(s.cell), len(lengths), near=near, amplitudes=lengths)(tensor(s.positions)[None])[0]
        np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), rtol=2e-5, atol=2e-5)


def protocol_of(s, prior, strength):
    """Two stages as published, shortened; the data, the reference's samplers of both stages and glassjax's."""
    data = 1 + np.exp(-0.5 * ((RUN - 2.4) / 0.2) ** 2) - np.exp(-0.5 * (RUN / 1.5) ** 2)
    aim = target(RUN, data, s.symbols, function="g", number_density=SILICON, width=0.15)
    assert np.array_equal(np.asarray(aim.observable.x), RUN.astype(np.float32))
    plan = protocol("two-stage", steps=9, finish=True, method="gradient", strength=strength, veto_margin=None)
    ours = [replace(one, score=one.score.fit(s)) for one in stages(prior, [aim], elements=s.elements, protocol=plan)]
    network, species, cell = convert.from_prior(prior), tensor(s.species, torch.long), tensor(s.cell)
    observable = spectra.PairDistribution(RUN, cell, len(species), near=False)
    guided = sampler.ReverseSDE(network, species, cell, sampler.Guidance([(observable, tensor(aim.data))], strength))
    return ours, [sampler.ReverseSDE(network, species, cell), guided]


@jax.jit
def draws(key, step):
    """The standard normal numbers of one step of glassjax: of the kick, and of the sampler."""
    return [jax.random.normal(k, (32, 3), jnp.float32) for k in jax.random.split(jax.random.fold_in(key, step))]


def trajectory(s, todo, seed, moves):
    """Positions after every step of glassjax, and the random numbers that it drew (kick, noise) per stage."""
    state = start(jax.random.key(seed), 0, s)
    path, drawn = [], []
    for stage in todo:
        numbers = []
        for index in range(len(stage.ladder)):
            numbers.append([np.asarray(z) for z in draws(state.key, state.step)])
            state, _ = moves(state, replace(stage, ladder=jnp.asarray(stage.ladder[index : index + 1])))
            path.append(np.asarray(state.structure.positions))
        drawn.append((numbers[0][0], np.stack([z for _, z in numbers])))
    return np.stack(path), drawn


def reference_trajectory(starts, todo, ladders, drawn):
    """The same by the reference: starts [replicas, n, 3], drawn [stage][kick or noise] with a replica axis."""
    positions, reached, path = starts, 0.0, []
    for one, levels, (kick, noise) in zip(todo, ladders, drawn, strict=True):
        # glassjax leaves out the noise of a step to zero only
        states = one.run(positions, levels, kick=kick, noise=noise, reached=reached, end_noise=levels[-1] > 0)
        path += states[1:]
        positions, reached = states[-1], float(levels[-1])
    return torch.stack(path, dim=1)


def levels_of(stage):
    return np.append(stage.ladder[:, 0], stage.ladder[-1, 1])


@pytest.fixture(scope="module")
def runs():
    """Two replicas of glassjax's two stages and what the reference needs to repeat them."""
    structures = [silicon(seed) for seed in (1, 2)]
    prior = prior_of(structures[0], width=32, blocks=1, cutoff=5.0)
    ours, theirs = protocol_of(structures[0], prior, STRENGTH)
    moves = jax.jit(advance)
    found = [trajectory(s, ours, seed, moves) for seed, s in enumerate(structures)]
    drawn = [(torch.stack([tensor(d[k][0]) for _, d in found]), torch.stack([tensor(d[k][1]) for _, d in found], dim=1)) for k in range(len(ours))]
    starts = torch.stack([tensor(s.positions) for s in structures])
    return dict(paths=np.stack([p for p, _ in found]), starts=starts, drawn=drawn, ladders=[levels_of(s) for s in ours], samplers=theirs)


def single(runs, index):
    drawn = [(kick[index : index + 1], noise[:, index : index + 1]) for kick, noise in runs["drawn"]]
    return reference_trajectory(runs["starts"][index : index + 1], runs["samplers"], runs["ladders"], drawn)[0]


def test_trajectory_is_the_same(runs):
    """Prior alone, then guided: positions after each of 13 steps (float32; atoms move by angstroms)."""
    assert [len(x) - 1 for x in runs["ladders"]] == [8, 5]
    for index, path in enumerate(runs["paths"]):
        theirs = single(runs, index).numpy()
        assert np.isfinite(path).all() and np.abs(path[-1] - runs["starts"][index].numpy()).max() > 1.0
        print("largest difference per step, A:", np.abs(path - theirs).max(axis=(1, 2)))
        assert np.abs(path - theirs).max() < 5e-4


def test_every_guided_step_is_the_same(runs):
    """From glassjax's own positions, so that no difference is carried on: 1e-5 A per step."""
    guided, levels, noise = runs["samplers"][1], runs["ladders"][1], runs["drawn"][1][1]
    for replica, path in enumerate(runs["paths"]):
        for index in range(1, 5):
            before, after = tensor(path[8 + index - 1])[None], path[8 + index]
            z = noise[index, replica : replica + 1]
            moved = guided.step(before, levels[index], levels[index + 1], z if levels[index + 1] > 0 else None)[0].numpy()
            print("difference", np.abs(moved - after).max(), "A of", np.abs(after - before[0].numpy()).max())
            assert np.abs(moved - after).max() < 2e-5


def test_guidance_moves_the_trajectory(runs):
    """The agreement is of guided steps: without the data the second stage goes elsewhere."""
    unguided = runs | dict(samplers=[runs["samplers"][0]] * 2)
    assert float((single(unguided, 0) - single(runs, 0))[-1].abs().max()) > 0.05


def test_batched_replicas_are_those_of_one_at_a_time(runs):
    together = reference_trajectory(runs["starts"], runs["samplers"], runs["ladders"], runs["drawn"])
    alone = torch.stack([single(runs, index) for index in range(2)])
    assert float((together - alone).abs().max()) < 2e-4


def test_near_pairs_give_the_push_of_all_pairs(runs):
    guided = runs["samplers"][1]
    ((observable, data),) = guided.guidance.rows
    near = spectra.PairDistribution(RUN, guided.cell, observable.atoms, near=True)
    push = [sampler.Guidance([(one, data)], STRENGTH)(runs["starts"]) for one in (observable, near)]
    assert float((push[0] - push[1]).abs().max()) < 1e-4 * float(push[0].abs().max())
    assert float(push[0].abs().max()) > 1.0


@pytest.mark.skipif("GLASSJAX_TEST_COMPILE" not in os.environ, reason="torch.compile takes a minute: set GLASSJAX_TEST_COMPILE=1")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_step_is_the_same(runs, backend):
    """Capture and differentiation by themselves (aot_eager), and with the generated code where there is a C++ compiler."""
    guided, sigma = runs["samplers"][1], torch.tensor(0.4)
    works, reason = sampler.inductor_works() if backend == "inductor" else (True, "")
    if not works:
        pytest.skip(reason)
    compiled = guided.compiled(backend=backend)
    for starts in (runs["starts"][:1], runs["starts"]):  # other numbers of edges and pairs
        expected = guided.score(starts, sigma)
        assert float((compiled.score(starts, sigma) - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_published_protocol_runs():
    """Both stages of the reference with its own random numbers, shortened."""
    s = silicon(4, 16)
    network, species, cell = convert.from_prior(prior_of(s)), tensor(s.species, torch.long), tensor(s.cell)
    observable = spectra.PairDistribution(R, cell, 16)
    guided = sampler.ReverseSDE(network, species, cell, sampler.Guidance([(observable, torch.ones(len(R)))], 1.0))
    levels = sampler.ladder(1.0, 512)
    assert len(levels) == 513 and abs(float(levels[0]) - 0.8) < 1e-12 and abs(float(levels[-1]) - 8e-4) < 1e-12
    draws = [
        sampler.two_stage(guided, guided, tensor(s.positions)[None], steps=(3, 2), generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.isfinite(draws[0]).all() and torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_gradient_guidance_is_the_published_formula():
    """One push by hand: -(w / sum n_c) dL/dx0 from a central difference of L."""
    s = silicon(5, 8)
    observable = spectra.PairDistribution(R, tensor(s.cell, torch.float64), 8)
    data, x = torch.ones(len(R), dtype=torch.float64), tensor(s.positions, torch.float64)[None]
    push = sampler.Guidance([(observable, data)], 7.0)(x)

    def loss(shift):
        moved = x.clone()
        moved[0, 2, 1] += shift
        return float(((data - observable(moved)) ** 2).sum())

    slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert float(push[0, 2, 1]) == pytest.approx(-7.0 / loss(0.0) ** 0.5 * slope, rel=1e-5)
