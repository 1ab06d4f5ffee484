import subprocess
import sys

import numpy as np
import pytest

from glassjax import elements as el

SEARS = {
    "H": -3.7390, "D": 6.671, "C": 6.646, "O": 5.803, "Si": 4.1491, "S": 2.847, "Al": 3.449, "Ni": 10.3, "Cu": 7.718, "Zr": 7.16,
}  # fmt: skip
FORM_FACTORS = {
    "Si": [13.9989, 7.2238, 3.7784, 1.5126],
    "O": [7.9997, 3.0244, 1.5723, 0.9317],
    "S": [15.9996, 7.8759, 4.8175, 1.7887],
    "C": [5.9972, 1.9552, 1.3289, 0.5936],
}


@pytest.mark.parametrize("symbol", SEARS)
def test_neutron_length_is_sears_1992(symbol):
    assert el.neutron_length(symbol) == pytest.approx(SEARS[symbol], abs=1e-12)


def test_argon_and_silica_mean_squares():
    """<b>^2 of argon is 3.644 fm^2 (Keen 2001); of silica 0.2758 barn."""
    assert el.neutron_length("Ar") ** 2 == pytest.approx(3.644, abs=5e-4)
    mean = (el.neutron_length("Si") + 2 * el.neutron_length("O")) / 3
    assert mean**2 / 100 == pytest.approx(0.2758, abs=5e-5)


@pytest.mark.parametrize("symbol", FORM_FACTORS)
def test_form_factor_numbers(symbol):
    f = el.xray_form_factor(symbol, np.array([0.0, 5.0, 10.0, 20.0]))
    assert f.shape == (4,)
    np.testing.assert_allclose(f, FORM_FACTORS[symbol], atol=5.1e-5)


@pytest.mark.parametrize("symbol", ["H", "Al", "Cu", "Zr", "Pb"])
def test_form_factor_limit_is_atomic_number(symbol):
    assert el.xray_form_factor(symbol, [0.0])[0] == pytest.approx(el.atomic_number(symbol), rel=2e-3)


def test_form_factor_of_deuterium_and_scalar_q():
    assert el.xray_form_factor("D", 1.0) == pytest.approx(el.xray_form_factor("H", 1.0))
    assert el.xray_form_factor("Si", 5.0).shape == ()


@pytest.mark.parametrize("q", [[-1.0], [np.nan], [1000.0]])
def test_form_factor_refuses_bad_q(q):
    with pytest.raises(ValueError, match="got Q"):
        el.xray_form_factor("Si", q)


def test_number_and_mass():
    assert el.atomic_number("Zr") == 40 and el.atomic_number("D") == 1
    assert el.atomic_mass("Si") == pytest.approx(28.085) and el.atomic_mass("D") == pytest.approx(2.0141, abs=1e-4)


@pytest.mark.parametrize("function", [el.neutron_length, el.atomic_mass, el.atomic_number, lambda s: el.xray_form_factor(s, [1.0])])
@pytest.mark.parametrize("symbol", ["Xx", "si", "n", "", "Silicon", None])
def test_unknown_element(function, symbol):
    with pytest.raises(ValueError, match="got element"):
        function(symbol)


def test_elements_without_table_entries():
    with pytest.raises(ValueError, match="no neutron scattering length"):
        el.neutron_length("Po")
    with pytest.raises(ValueError, match="no X-ray form factor"):
        el.xray_form_factor("Lr", [1.0])


def test_editions_name_table_and_version():
    import periodictable

    assert set(el.EDITIONS) == {"neutron_length", "xray_form_factor", "atomic_mass"}
    assert "Sears" in el.EDITIONS["neutron_length"] and periodictable.__version__ in el.EDITIONS["neutron_length"]
    assert "Waasmaier" in dict(el.EDITIONS)["xray_form_factor"]


def test_import_loads_no_table_package():
    code = "import sys, glassjax.elements; assert not {'xraydb', 'periodictable', 'ase'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("composition", "atoms", "counts"),
    [
        ("Si", 216, {"Si": 216}),
        ("SiO2", 300, {"Si": 100, "O": 200}),
        ("Cu50Zr50", 10, {"Cu": 5, "Zr": 5}),
        ("Cu64.5Zr35.5", 200, {"Cu": 129, "Zr": 71}),
        ("Cu0.5Zr0.5", 2, {"Cu": 1, "Zr": 1}),
        ("CH3OH", 6, {"C": 1, "H": 4, "O": 1}),
    ],
)
def test_composition(composition, atoms, counts):
    symbols = el.parse_composition(composition, atoms)
    assert len(symbols) == atoms and list(dict.fromkeys(symbols)) == list(counts)
    assert {s: symbols.count(s) for s in counts} == counts


def test_composition_names_nearest_atom_counts():
    with pytest.raises(ValueError, match=r"multiple of 3 atoms; set atoms to 216 or 219"):
        el.parse_composition("SiO2", 217)
    with pytest.raises(ValueError, match=r"set atoms to 100$"):
        el.parse_composition("Cu33Zr67", 99)


@pytest.mark.parametrize(
    ("composition", "atoms", "match"),
    [
        ("Xx2O", 3, "got element 'Xx'"),
        ("si", 8, "got composition"),
        ("", 8, "got composition"),
        ("Ca(OH)2", 5, "no brackets"),
        ("Si1.2.3", 5, "got composition"),
        ("SiO0", 3, "amount of zero"),
        ("Si", 0, "got 0 atoms"),
        ("Si", 2.5, "got 2.5 atoms"),
    ],
)
def test_composition_errors(composition, atoms, match):
    with pytest.raises(ValueError, match=match):
        el.parse_composition(composition, atoms)


def test_density_both_ways():
    assert el.check_density(["Si"], 0.0489) == 0.0489
    assert el.check_density(["Si"], mass_density=2.29) == pytest.approx(0.04910, abs=1e-5)
    assert el.check_density(["Si", "O", "O"], mass_density=2.2) == pytest.approx(0.06615, abs=1e-5)


@pytest.mark.parametrize("symbols", [["Si"], ["Si", "O", "O"], ["Cu", "Zr"], ["C"]])
def test_density_unit_mix_up_is_named(symbols):
    with pytest.raises(ValueError, match=r"looks like a mass density.*--density"):
        el.check_density(symbols, 2.29)
    with pytest.raises(ValueError, match=r"looks like a number density.*--number-density"):
        el.check_density(symbols, mass_density=0.0489)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), 1e6])
def test_density_out_of_any_range(value):
    with pytest.raises(ValueError, match="check the value"):
        el.check_density(["Si"], value)


def test_density_needs_exactly_one():
    with pytest.raises(ValueError, match="neither"):
        el.check_density(["Si"])
    with pytest.raises(ValueError, match="both"):
        el.check_density(["Si"], 0.05, mass_density=2.3)
    with pytest.raises(ValueError, match="got symbols"):
        el.check_density("Si", 0.05)
    with pytest.raises(ValueError, match="got kind"):
        el.suggest_density_unit(1.0, "molar", ["Si"])
