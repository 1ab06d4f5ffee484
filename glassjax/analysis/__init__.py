"""What structures look like: local order, and comparisons between them."""

from glassjax.analysis.comparison import Comparison as Comparison
from glassjax.analysis.comparison import compare as compare
from glassjax.analysis.crystal import diamond_atoms as diamond_atoms
from glassjax.analysis.crystal import diamond_fraction as diamond_fraction
from glassjax.analysis.curve_sets import curves as curves
from glassjax.analysis.dihedral import dihedral_angles as dihedral_angles
from glassjax.analysis.local import bond_angles as bond_angles
from glassjax.analysis.local import bond_cutoffs as bond_cutoffs
from glassjax.analysis.local import coordination_fractions as coordination_fractions
from glassjax.analysis.local import coordination_numbers as coordination_numbers
from glassjax.analysis.local import local_order as local_order
from glassjax.analysis.local import matching_fraction as matching_fraction
from glassjax.analysis.local import shortest_distance as shortest_distance
from glassjax.analysis.order import partial_coordination as partial_coordination
from glassjax.analysis.order import steinhardt as steinhardt
from glassjax.analysis.order import warren_cowley as warren_cowley
from glassjax.analysis.rings import ring_counts as ring_counts
from glassjax.analysis.voronoi import voronoi_indices as voronoi_indices
