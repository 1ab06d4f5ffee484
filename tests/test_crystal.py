"""Cubic-diamond surroundings: perfect, shaken, strained and defective crystals, look-alikes, and what has none."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene
from ase.io import read
from ase.neighborlist import neighbor_list

import glassjax
from glassjax._pytree import replace
from glassjax.analysis import diamond_atoms, diamond_fraction

CARBON = 3.567  # A, lattice constant of diamond


def shaken(atoms, deviation, seed=0):
    moved = atoms.copy()
    moved.positions += np.random.default_rng(seed).normal(scale=deviation, size=moved.positions.shape)
    return glassjax.from_atoms(moved)


def cubic(repeat=3):
    return bulk("C", "diamond", a=CARBON, cubic=True).repeat(repeat)


@pytest.mark.parametrize("atoms", [cubic(1), cubic(3), bulk("C", "diamond", a=CARBON), bulk("Si", "diamond", a=5.431, cubic=True)])
def test_perfect_diamond_of_any_cell_and_size_is_whole(atoms):
    assert diamond_fraction(glassjax.from_atoms(atoms)) == 1.0


def test_species_are_not_told_apart_and_empty_slots_are_left_out():
    blende = glassjax.from_atoms(bulk("SiC", "zincblende", a=4.36, cubic=True).repeat(2))
    assert diamond_fraction(blende) == 1.0
    slots = replace(
        blende, positions=np.concatenate([blende.positions, np.zeros((3, 3))]), species=np.concatenate([blende.species, np.full(3, -1, np.int32)])
    )
    assert diamond_atoms(slots).tolist() == [True] * len(blende.species)


def test_a_small_disorder_is_seen_through_and_a_large_one_is_not():
    assert diamond_fraction(shaken(cubic(), 0.05)) > 0.99
    fractions = [diamond_fraction(shaken(cubic(), d)) for d in (0.05, 0.15, 0.2, 0.4)]
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[-1] < 0.05


def test_a_strained_or_turned_crystal_is_still_diamond():
    turned = cubic(2)
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.set_cell(turned.cell @ np.diag([1.03, 1.0, 0.98]), scale_atoms=True)
    assert diamond_fraction(glassjax.from_atoms(turned)) == 1.0


def test_a_vacancy_spoils_its_first_and_second_shell():
    atoms = cubic(3)
    del atoms[0]
    assert np.count_nonzero(~diamond_atoms(glassjax.from_atoms(atoms))) == 4 + 12


def test_hexagonal_diamond_and_graphite_are_not_cubic_diamond():
    a = CARBON / np.sqrt(2)
    c, u = a * np.sqrt(8 / 3), 3 / 8
    places = [(0, 0, 0), (0, 0, u), (1 / 3, 2 / 3, 0.5), (1 / 3, 2 / 3, 0.5 + u)]
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]]
    lonsdaleite = Atoms("C4", scaled_positions=np.array(places) + 0.01, cell=cell, pbc=True).repeat((4, 4, 3))
    assert (np.bincount(neighbor_list("i", lonsdaleite, 1.85)) == 4).all()
    assert diamond_fraction(glassjax.from_atoms(lonsdaleite)) == 0.0
    sheet = graphene(a=2.46, size=(4, 4, 1), vacuum=1.7)
    sheet.pbc = True
    assert diamond_fraction(glassjax.from_atoms(sheet)) == 0.0


def test_other_packings_have_none():
    for atoms in (bulk("Al", "fcc", a=4.05, cubic=True).repeat(3), bulk("Fe", "bcc", a=2.87, cubic=True).repeat(3)):
        assert diamond_fraction(glassjax.from_atoms(atoms)) == 0.0
    packing = glassjax.random_packing(0, ["C"] * 216, number_density=0.1, minimum_distance=1.2)
    assert diamond_fraction(packing) == 0.0


def test_a_cutoff_below_the_bond_leaves_nothing():
    structure = glassjax.from_atoms(cubic(2))
    bond = CARBON * np.sqrt(3) / 4
    assert diamond_fraction(structure, bond + 0.02) == 1.0
    assert diamond_fraction(structure, bond - 0.02) == 0.0


def test_a_lone_atom_with_its_images_is_judged():
    assert diamond_fraction(glassjax.from_atoms(Atoms("C", cell=[4.0, 4.0, 4.0], pbc=True))) == 0.0


@pytest.mark.parametrize("cutoff", [0, -1.0, float("nan"), float("inf")])
def test_a_bad_cutoff_is_refused(cutoff):
    with pytest.raises(ValueError, match="needs a positive length"):
        diamond_fraction(glassjax.from_atoms(cubic(1)), cutoff)


def test_amorphous_cells_of_the_data_have_none_and_its_diamond_is_whole(data_folder):
    cells = read(data_folder / "carbon" / "ac_gap_train.extxyz", ":")
    assert max(diamond_fraction(glassjax.from_atoms(atoms)) for atoms in cells[::4]) < 0.01
    assert diamond_fraction(glassjax.from_atoms(read(data_folder / "carbon" / "diamond.extxyz"))) == 1.0
    assert diamond_fraction(glassjax.from_atoms(read(data_folder / "carbon" / "graphite.extxyz"))) == 0.0


def test_ovito_agrees_where_it_is_installed():
    pytest.importorskip("ovito")
    from ovito.io.ase import ase_to_ovito
    from ovito.modifiers import IdentifyDiamondModifier
    from ovito.pipeline import Pipeline, StaticSource

    for deviation in (0.0, 0.1, 0.16):
        atoms = cubic(3)
        atoms.positions += np.random.default_rng(1).normal(scale=deviation, size=atoms.positions.shape)
        pipeline = Pipeline(source=StaticSource(data=ase_to_ovito(atoms)))
        pipeline.modifiers.append(IdentifyDiamondModifier())
        theirs = np.asarray(pipeline.compute().particles["Structure Type"]) == int(IdentifyDiamondModifier.Type.CUBIC_DIAMOND)
        assert np.mean(theirs != diamond_atoms(glassjax.from_atoms(atoms))) < 0.01
