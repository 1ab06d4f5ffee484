"""EXAFS: closed forms of a dimer, a shell and a triangle, gradients, FEFF itself, transforms, targets and their nuisance terms, and bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ZeroScore

from glassjax import guidance
from glassjax import structure as st
from glassjax._pytree import replace
from glassjax.absorption import fourier_operator
from glassjax.absorption_targets import absorption_target
from glassjax.measurements import read_target
from glassjax.neighbors import build
from glassjax.observables.exafs import exafs
from glassjax.observables.multiple_scattering import multiple_scattering
from glassjax.scattering_tables import HBAR2_OVER_2M, align_edge, find_table, path_terms, shifted
from glassjax.structure import Structure, number_density

K = np.arange(3.0, 12.01, 0.05)
RHO = 0.05


def made(positions, symbols, side):
    elements = tuple(dict.fromkeys(symbols))
    kind = jnp.result_type(float)
    species = jnp.asarray([elements.index(s) for s in symbols], jnp.int32)
    return Structure(positions=jnp.asarray(positions, kind), cell=jnp.eye(3, dtype=kind) * side, species=species, elements=elements)


def glass(atoms=32, seed=2, symbols=None):
    symbols = ["Si"] * atoms if symbols is None else symbols
    return st.random_packing(seed, symbols, number_density=RHO, minimum_distance=2.0)


def as64(s):
    return replace(s, positions=jnp.asarray(s.positions, float), cell=jnp.asarray(s.cell, float))


def equation(k, r, scatterer, *, absorber="Si", elements=("Si",), density=RHO, s02=1.0, e0=0.0, mean_square=0.0):
    """The EXAFS equation for one neighbour, straight from the table."""
    table = find_table(elements, absorber, "K")
    at = shifted(k, e0)
    f = table.amplitude(at, [r], scatterer, density)[:, 0]
    return s02 * np.abs(f) * np.sin(2 * at * r + np.angle(f)) / (at * r**2) * np.exp(-2 * at**2 * mean_square)


@pytest.mark.parametrize("r", [2.2513, 2.3517, 3.8391])
def test_dimer(r, x64):
    options = dict(s02=0.83, e0_shift=3.5, mean_square=0.004)
    s = made([[1.0, 1.0, 1.0], [1.0 + r, 1.0, 1.0]], ["Si", "Si"], 30.0)
    curve = np.asarray(exafs(K, ["Si", "Si"], edge="Si:K", number_density=RHO, **options)(s))
    expected = equation(K, r, "Si", s02=0.83, e0=3.5, mean_square=0.004)
    np.testing.assert_allclose(curve, expected, atol=1e-6 * np.abs(expected).max())


def test_single_shell_of_a_crystal_with_images(x64):
    """Simple cubic: six neighbours, all of them images of the one atom."""
    s = made([[0.0, 0.0, 0.0]], ["Si"], 2.47)
    curve = np.asarray(exafs(K, ["Si"], edge="Si:K", number_density=RHO, rmax=3.0, taper=0.2, kweight=2)(s))
    expected = 6 * K**2 * equation(K, 2.47, "Si")
    np.testing.assert_allclose(curve, expected, atol=1e-6 * np.abs(expected).max())


def test_only_absorbers_are_averaged(x64):
    """One O between two Si: the O edge sees two Si, the Si edge half an O-Si pair on each of two absorbers."""
    s = made([[0, 0, 0], [1.62, 0, 0], [-1.4, 0.9, 0]], ["O", "Si", "Si"], 30.0)
    gap = float(np.hypot(3.02, 0.9))
    oxygen = np.asarray(exafs(K, s.symbols, edge="O:K", number_density=0.066)(s))
    silicon = np.asarray(exafs(K, s.symbols, edge="Si:K", number_density=0.066)(s))
    common = dict(elements=("O", "Si"), density=0.066)
    expected = sum(equation(K, r, "Si", absorber="O", **common) for r in (1.62, float(np.hypot(1.4, 0.9))))
    np.testing.assert_allclose(oxygen, expected, atol=1e-6 * np.abs(expected).max())
    expected = sum(equation(K, r, "O", **common) for r in (1.62, float(np.hypot(1.4, 0.9)))) / 2 + equation(K, gap, "Si", **common)
    np.testing.assert_allclose(silicon, expected, atol=1e-6 * np.abs(expected).max())


def test_triangle_of_multiple_scattering(x64):
    s = made([[0, 0, 0], [2.3, 0, 0], [0.4, 2.25, 0.2]], ["Si"] * 3, 30.0)
    table = find_table(("Si",), "Si", "K")
    options = dict(edge="Si:K", number_density=RHO, kweight=1, taper=0.0)
    k = K[::6]
    found = np.asarray(multiple_scattering(k, s.symbols, **options)(s)) - np.asarray(exafs(k, s.symbols, **options)(s))
    p = np.asarray(s.positions)
    expected = np.zeros(len(k))
    for a, j, i in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        near, far, across = (np.linalg.norm(p[x] - p[y]) for x, y in ((a, j), (a, i), (j, i)))
        paths = [("triangle", near, far, 2), ("bounce", near, far, 2), ("through", near, far, 1), ("through", far, near, 1)]
        for kind, first, second, count in paths:
            half, product, columns = path_terms(kind, first, second, across)
            if half < table.reach_multiple:
                f = np.stack(columns) @ table.double_coefficients(k, kind, "Si", "Si")
                expected += count * np.imag(f * np.exp(2j * k * half)) / product * np.exp(-2 * half / table.wavelength(k)) / 3
        for r in (near, far):  # a-j-a-j-a
            if 2 * r < table.reach_multiple:
                f = table.back_amplitude(k, [r], "Si")[:, 0]
                expected += np.imag(f * np.exp(4j * k * r)) / (2 * r) ** 2 / 3
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


TRANSFORM = dict(kmin=3.0, kmax=11.0, kweight=2, dk=1.0, window="hanning")
OBSERVABLES = {
    "chi(k)": lambda s: exafs(K[::9], s.symbols, edge="Si:K", number_density=RHO, kweight=2),
    "chi(R)": lambda s: exafs(np.linspace(1.0, 4.0, 9), s.symbols, edge="Si:K", number_density=RHO, transform=TRANSFORM, rmax=5.0),
    "multiple": lambda s: multiple_scattering(K[::40], s.symbols, edge="Si:K", number_density=RHO, kweight=2),
}


@pytest.mark.parametrize("name", OBSERVABLES)
def test_gradients_against_finite_differences(name, x64, quick_compile):
    s = as64(glass(24))
    one = OBSERVABLES[name](s).fit(s)
    rng = np.random.default_rng(0)
    columns, direction = rng.normal(size=one.x.shape), rng.normal(size=s.positions.shape)
    value = jax.jit(lambda p: jnp.asarray(columns) @ one(replace(s, positions=p)))
    found = float(np.vdot(np.asarray(jax.jit(jax.grad(value))(s.positions)), direction))
    h = 1e-4
    expected = float(value(s.positions + h * direction) - value(s.positions - h * direction)) / (2 * h)
    assert found == pytest.approx(expected, rel=1e-4)
    if name == "multiple":  # the pair functions' own is tested with the others
        curve, jacobian, strain = jax.jit(lambda s: one.linearize(s, build(s, one.spec)))(s)
        np.testing.assert_allclose(curve, one(s), rtol=1e-9)
        assert float(np.einsum("ncm,nc,m->", jacobian, direction, columns)) == pytest.approx(
            expected, rel=0.05
        )  # slopes of pairs are read from a grid
        scaled = [replace(s, positions=s.positions * f, cell=s.cell * f) for f in (1 + h, 1 - h)]
        stretched = [float(jnp.asarray(columns) @ one(q)) for q in scaled]
        assert float(strain @ columns) == pytest.approx((stretched[0] - stretched[1]) / (2 * h), rel=0.1)


def test_multiple_scattering_tells_what_it_needs(quick_compile):
    s = glass(24)
    one = OBSERVABLES["multiple"](s).fit(s)
    small = replace(one, spec=dataclasses.replace(one.spec, edges=1))
    graph = build(s, small.spec)
    assert np.isnan(np.asarray(small.linearize(s, graph)[0])).all()
    grown = small.grown(np.asarray(small.needed(s, graph)))
    np.testing.assert_allclose(grown(s), one(s), rtol=1e-5)


def test_transform_of_the_model_is_the_operator_on_its_chi(x64):
    s = as64(glass(24))
    r = np.linspace(1.0, 4.0, 31)
    k = np.arange(2.0, 12.01, 0.05)
    chi = np.asarray(exafs(k, s.symbols, edge="Si:K", number_density=RHO, rmax=5.0)(s))
    expected = fourier_operator(k, r, **TRANSFORM) @ chi
    found = np.asarray(exafs(r, s.symbols, edge="Si:K", number_density=RHO, rmax=5.0, transform=TRANSFORM)(s))
    np.testing.assert_allclose(found, np.concatenate([expected.real, expected.imag]), atol=1e-8)


def frozen_fit(s, target):
    """Nuisance values and deviations that guidance infers for a structure that is exactly right."""
    score = guidance.posterior(ZeroScore(), target).fit(s)
    _, info = jax.jit(lambda s: score(s, jnp.float32(1e-3)))(s)
    return dict(zip(target.nuisance.names, np.asarray(info["nuisance"]), strict=True)), float(info["r_factor"][0])


def test_amplitude_shift_and_displacement_are_inferred(quick_compile):
    s = glass(64)
    k = np.arange(2.5, 13.01, 0.05)
    truth = dict(s02=0.82, e0_shift=5.0, mean_square=0.004)
    chi = np.asarray(exafs(k, s.symbols, edge="Si:K", number_density=RHO, **truth)(s))
    given = dict(e0_shift=dict(start=4.5), s02="infer", mean_square="infer", uncertainty=1e-3)  # exact data outweigh the terms' priors
    made = absorption_target(k, chi, s.symbols, function="chi(k)", number_density=RHO, edge="Si:K", kmin=3, kmax=12, **given)
    found, ratio = frozen_fit(s, made)
    assert found["scale"] == pytest.approx(0.82, abs=0.02)
    assert found["e0"] == pytest.approx(5.0, abs=0.1)  # first order about 4.5 eV
    assert found["mean_square"] == pytest.approx(0.004, abs=4e-4)
    assert ratio < 0.05


@pytest.mark.parametrize("shift", [-8.0, 0.0, 6.5])
def test_the_edge_is_aligned_with_the_table(shift):
    table = find_table(("Si",), "Si", "K")
    k = np.arange(2.0, 13.0, 0.05)
    chi = 0.7 * np.interp(shifted(k, shift), table.k, table.mean_chi) * np.exp(-2 * shifted(k, shift) ** 2 * 0.004)
    found, scale, mean_square = align_edge(k, chi, table, kmin=3, kmax=12)
    assert found == pytest.approx(shift, abs=0.51)
    assert scale == pytest.approx(0.7, abs=0.05)
    assert mean_square == pytest.approx(0.004, abs=0.0021)


def test_transform_sees_the_model_where_the_data_are(quick_compile):
    """Data that end inside the window: both are cut there."""
    s = glass(24)
    k = np.arange(2.0, 11.01, 0.05)
    chi = np.asarray(exafs(k, s.symbols, edge="Si:K", number_density=RHO)(s))
    made = absorption_target(k, chi, s.symbols, function="chi(R)", number_density=RHO, edge="Si:K", kmin=3, kmax=11, rmin=1.0, rmax=5.0)
    np.testing.assert_allclose(made.observable(s), made.data, atol=2e-3 * float(np.abs(made.data).max()))


def test_shift_of_wavenumber():
    energy = HBAR2_OVER_2M * K**2
    np.testing.assert_allclose(shifted(K, 4.0), np.sqrt((energy - 4.0) / HBAR2_OVER_2M))


def test_targets_from_a_file(tmp_path, quick_compile):
    s = glass(24)
    k = np.arange(0.0, 14.01, 0.05)
    chi = np.concatenate([[0.0], np.asarray(exafs(k[1:], s.symbols, edge="Si:K", number_density=RHO)(s))])
    file = tmp_path / "a.chi"
    file.write_text("# k chi\n" + "\n".join(f"{a:.4f} {b:.8e}" for a, b in zip(k, chi, strict=True)) + "\n")
    common = dict(symbols=s.symbols, number_density=RHO, edge="Si:K", kmin=3.0, kmax=12.0)
    in_k, record = read_target(file, **common)
    assert in_k.observable.function == "chi(k)" and record["edge"] == "Si:K" and record["options"]["kmin"] == 3.0
    assert float(in_k.observable.x[0]) == pytest.approx(3.0) and float(in_k.observable.x[-1]) == pytest.approx(12.0)
    np.testing.assert_allclose(in_k.model(in_k.observable(s)), in_k.data, atol=2e-3 * float(np.abs(in_k.data).max()))
    in_r, _ = read_target(file, function="chi(R)", rmin=1.2, rmax=3.0, **common)
    # pairs beyond the range count only 1 A farther, so their tails differ
    ratio = np.linalg.norm(in_r.data - in_r.observable(s)) / np.linalg.norm(in_r.data)
    assert ratio < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(edge="C:K"), "C:K, but the structure has Si"),
        (dict(edge="Si:L3"), "Si:L3 in a material of Si; needs one of the shipped tables"),
        (dict(kmax=20.0), "range"),
        (dict(kmin=9.0, kmax=4.0), "range"),
        (dict(number_density=1e-4), "no neighbour inside"),
        (dict(function="chi(q)"), "function"),
        (dict(function="mu(E)"), "surrogate"),
        (dict(function="chi(R)", rmin=4.0, rmax=2.0), "rmin"),
        (dict(function="chi(R)", e0_shift=dict(start=1.0)), "chi\\(R\\)"),
        (dict(function="chi(R)", multiple=True), "multiple"),
        (dict(rmax=1.5), "no neighbour inside"),
        (dict(e0_shift="guess"), "e0_shift"),
        (dict(rmax=9.0), "serves up to 6 A"),
        (dict(multiple=5.9), "multiple scattering up to"),
        (dict(uncertainty=0.0), "uncertainty"),
        (dict(s02=-1.0), "scale"),
    ],
)
def test_bad_targets(options, message):
    k = np.arange(0.5, 14.0, 0.05)
    given = dict(function="chi(k)", number_density=RHO, edge="Si:K") | options
    with pytest.raises(ValueError, match=message):
        absorption_target(k, np.sin(5 * k) / k**2, ["Si"] * 8, **given)


def test_options_of_other_functions_are_refused(tmp_path):
    file = tmp_path / "a.chi"
    file.write_text("# k chi\n" + "\n".join(f"{a:.3f} {np.sin(5 * a) / a**2:.6e}" for a in np.arange(0.5, 14, 0.05)) + "\n")
    common = dict(symbols=["Si"] * 8, number_density=RHO)
    with pytest.raises(ValueError, match="termination"):
        read_target(file, edge="Si:K", termination="lorch", **common)
    with pytest.raises(ValueError, match="kweight"):
        read_target(file, function="g", kweight=2.0, **common)
    with pytest.raises(ValueError, match="element and edge"):
        read_target(file, function="chi(k)", **common)


CRYSTALS = {
    "Si:K": (5.43, [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]], ["Si"] * 8, 4),
    "Cu:K": (3.26, [[0, 0, 0], [2, 2, 2]], ["Cu", "Zr"], 4),
    "Zr:K": (3.26, [[0, 0, 0], [2, 2, 2]], ["Cu", "Zr"], 4),
}


@pytest.mark.parametrize("edge", CRYSTALS)
def test_tables_against_feff_itself(edge, tmp_path):
    """A disordered crystal that no table has seen: k^2 chi averaged over all absorbers, 3 to 12 1/A, single scattering, the same cutoff."""
    from glassjax.feff import LabelSettings, find_feff
    from glassjax.labelling import label

    try:
        feff = find_feff()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    side, places, symbols, parts = CRYSTALS[edge]
    rng = np.random.default_rng(3)
    s = made(np.array(places) * side / parts + 0.08 * rng.normal(size=(len(places), 3)), symbols, side)
    found = label([s], LabelSettings(element=edge[:2], reach=5.0), feff=feff, cache=tmp_path, workers=2)
    inside = (found.k > 2.99) & (found.k < 12.01)
    k = found.k[inside]
    expected = k**2 * found.chi[0].mean(axis=0)[inside]
    one = exafs(k, s.symbols, edge=edge, number_density=float(number_density(s)), rmax=5.0, taper=0.0, kweight=2)
    difference = np.asarray(one(s)) - expected
    assert np.sqrt(np.sum(difference**2) / np.sum(expected**2)) < 0.05
