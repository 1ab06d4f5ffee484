"""What every observable with a neighbour list does."""

from __future__ import annotations

import jax

from glassjax._pytree import replace
from glassjax.neighbors import Graph, NeighborSpec, grow, neighbor_spec
from glassjax.structure import Structure


class Listed:
    """What every observable with a neighbour list of its own (``spec``, out to ``rmax``) does, and what guidance asks of it."""

    largest_move = None  # A, farthest that guidance may move an atom's estimate in one step; None for any distance

    def fit(self, structure: Structure, **options):
        """The same observable with a neighbour list for structures like this one (options: `neighbor_spec`)."""
        return replace(self, spec=neighbor_spec(structure, self.rmax, **options))

    def grown(self, needed):
        """The same observable with capacities that suffice for what ``needed`` reported."""
        return replace(self, spec=grow(self.spec, needed))

    def needed(self, structure: Structure, graph: Graph) -> jax.Array:
        """What its lists needed, as `Graph.needed`."""
        return graph.needed

    def listed(self, structure: Structure) -> NeighborSpec:
        """Its neighbour list, or one made for this structure."""
        return neighbor_spec(structure, self.rmax) if self.spec is None else self.spec
