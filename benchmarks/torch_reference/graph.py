"""Periodic pairs by brute force, built anew at every step: all atoms with all atoms, and every lattice image that can be in range."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch


class Edges(NamedTuple):
    """Directed edges of replicas as one disjoint graph; atom i of replica r is node r n + i.

    Attributes:
      senders: [e] node an edge starts at.
      receivers: [e] node it ends at, ascending within a replica and image.
      displacements: [e, 3] from receiver to sender, A.
      distances: [e] A.
    """

    senders: torch.Tensor
    receivers: torch.Tensor
    displacements: torch.Tensor
    distances: torch.Tensor


def images(cell: torch.Tensor, reach: float) -> torch.Tensor:
    """Lattice shifts [s, 3], the zero shift first, beside the minimum image in fractional coordinates, that can bring a pair within ``reach`` (A).

    Exact for orthorhombic cells; for others every shift that the heights of the cell do not rule out.
    """
    cell = cell.detach().double().cpu()
    across = torch.stack([torch.linalg.cross(cell[1], cell[2]), torch.linalg.cross(cell[2], cell[0]), torch.linalg.cross(cell[0], cell[1])])
    heights = (torch.linalg.det(cell).abs() / torch.linalg.norm(across, dim=1)).tolist()
    orthorhombic = bool(torch.count_nonzero(cell - torch.diag(torch.diagonal(cell))) == 0)
    found = []
    for shift in itertools.product(*[range(-m, m + 1) for m in (math.floor(reach / h + 0.5) for h in heights)]):
        gaps = [max(abs(s) - 0.5, 0.0) * h for s, h in zip(shift, heights, strict=True)]
        if (math.hypot(*gaps) if orthorhombic else max(gaps)) < reach:
            found.append(shift)
    return torch.tensor(sorted(found, key=lambda s: sum(c * c for c in s)), dtype=torch.long)


def nearest(positions: torch.Tensor, cell: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Lattice vector [..., 3] (integers) that brings atom j to its fractional minimum image seen from atom i; positions [..., n, 3], no gradient."""
    fractions = positions.detach() @ torch.linalg.inv(cell)
    return -torch.round(fractions[..., j, :] - fractions[..., i, :])


def radius_graph(positions: torch.Tensor, cell: torch.Tensor, cutoff: float, shifts: torch.Tensor) -> Edges:
    """All directed edges shorter than ``cutoff`` (A) of replicas [r, n, 3] in one cell [3, 3] (rows); ``shifts`` from `images`."""
    replicas, n, _ = positions.shape
    everyone = torch.arange(n, device=positions.device)
    lattice = nearest(positions, cell, everyone[:, None], everyone[None, :])
    direct = positions[:, None, :, :] - positions[:, :, None, :]
    offsets = shifts.to(positions)
    separation = (direct + lattice @ cell)[:, None] + (offsets @ cell)[None, :, None, None]
    near = (separation**2).sum(-1) < cutoff**2
    near[:, 0].diagonal(dim1=1, dim2=2).fill_(False)
    replica, image, receiver, sender = near.nonzero(as_tuple=True)
    displacements = separation[replica, image, receiver, sender]
    return Edges(replica * n + sender, replica * n + receiver, displacements, torch.linalg.norm(displacements, dim=-1))
