"""g(r) by a Gaussian on every bin for every pair, differentiable by autograd."""

from __future__ import annotations

import math

import torch

from .graph import images, nearest

TAIL = 5.0  # widths beyond the last bin to which a Gaussian is followed


class PairDistribution:
    """Total g(r_k) = V / (4 pi r_k^2 N^2) sum_{ordered pairs, images} b_i b_j / <b>^2 N(r_k; d_ij, width) -> 1.

    Attributes:
      r: [m] A.
      width: standard deviation of the Gaussian, A.
      near: evaluate only pairs within r[-1] + 5 width; otherwise every pair of atoms in every image, as the paper does.
      sum_pairs: what `curve` calls on the chosen pairs; `sampler` may put a compiled form here.
    """

    def __init__(self, r, cell: torch.Tensor, atoms: int, *, width: float = 0.15, near: bool = False, amplitudes=None):
        self.r = torch.as_tensor(r).to(cell)
        self.width, self.near, self.cell, self.atoms = width, near, cell, atoms
        self.reach = float(self.r[-1]) + TAIL * width
        self.shifts = images(cell, self.reach).to(cell)
        b = torch.ones(atoms) if amplitudes is None else torch.as_tensor(amplitudes, dtype=torch.get_default_dtype())
        b = (b / b.mean()).to(cell)
        # i < j stands for both orders; an atom meets its own images once per image
        self.first, self.second = torch.triu_indices(atoms, atoms, device=cell.device)
        itself = self.first == self.second
        weights = torch.where(itself, 1.0, 2.0).to(cell) * b[self.first] * b[self.second]
        self.weights = weights[None].repeat(len(self.shifts), 1)
        self.weights[0, itself] = 0.0
        self.scale = torch.linalg.det(cell).abs() / (4 * math.pi * self.r**2 * atoms**2)
        self.sum_pairs = gaussian_sum

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """Curves [replicas, m] of positions [replicas, n, 3]."""
        replicas = positions.shape[0]
        lattice = (nearest(positions, self.cell, self.first, self.second)[:, None] + self.shifts[None, :, None]) @ self.cell
        weights = self.weights[None].expand(replicas, -1, -1)
        if not self.near:
            chosen = (weights > 0).nonzero(as_tuple=True)
        else:
            apart = (positions[:, self.second] - positions[:, self.first]).detach()[:, None] + lattice
            chosen = (((apart**2).sum(-1) < self.reach**2) & (weights > 0)).nonzero(as_tuple=True)
        replica, _, pair = chosen
        flat, n = positions.reshape(-1, 3), self.atoms
        ends = (replica * n + self.first[pair], replica * n + self.second[pair])
        start = torch.zeros(replicas, len(self.r), dtype=positions.dtype, device=positions.device)
        return self.scale * self.sum_pairs(flat, *ends, lattice[chosen], weights[chosen], replica, self.r, self.width, start)


def gaussian_sum(positions, first, second, lattice, weights, replica, r, width: float, start):
    """start [replicas, m] + sum over pairs of weight N(r; |x_second - x_first + lattice|, width)."""
    d = torch.linalg.norm(positions[second] - positions[first] + lattice, dim=-1)
    gauss = torch.exp(-0.5 * ((r[None] - d[:, None]) / width) ** 2) * (weights / (math.sqrt(2 * math.pi) * width))[:, None]
    return start + gauss.sum(0)[None] if start.shape[0] == 1 else start.index_add(0, replica, gauss)
