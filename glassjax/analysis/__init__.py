"""What structures look like: local order, and comparisons between them."""

from glassjax.analysis.crystal import diamond_atoms as diamond_atoms
from glassjax.analysis.crystal import diamond_fraction as diamond_fraction
from glassjax.analysis.local import bond_angles as bond_angles
from glassjax.analysis.local import bond_cutoffs as bond_cutoffs
from glassjax.analysis.local import coordination_fractions as coordination_fractions
from glassjax.analysis.local import coordination_numbers as coordination_numbers
from glassjax.analysis.local import local_order as local_order
from glassjax.analysis.local import matching_fraction as matching_fraction
from glassjax.analysis.local import shortest_distance as shortest_distance
