"""MeshGraphNet (Pfaff et al., ICLR 2021) as the score network of GLASS."""

from __future__ import annotations

import math

import torch
from torch import nn

SCALE = 0.8  # A: sigma(t) = k t


class MLP(nn.Module):
    """Linear layers with SiLU between them, then a layer norm if asked: widths (in, ..., out)."""

    def __init__(self, *widths: int, norm: bool = True):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.norm = nn.LayerNorm(widths[-1], eps=1e-5) if norm else nn.Identity()

    def forward(self, x):
        """[..., in] -> [..., out]."""
        for index, layer in enumerate(self.layers):
            x = layer(nn.functional.silu(x) if index else x)
        return self.norm(x)


class MeshGraphNet(nn.Module):
    """Score s = D(h) / sigma after ``blocks`` unshared blocks e_ij += M([h_i, h_j, e_ij]), h_j += U([h_j, sum_i e_ij]); i sends, j receives.

    Attributes:
      elements: number of species.
      width: hidden width d.
      cutoff: A, of the graph.
      frequencies: [d / 2] fixed B ~ N(0, 1) of the time features [cos 2 pi t B, sin 2 pi t B].
    """

    def __init__(self, elements: int, *, width: int = 200, blocks: int = 5, cutoff: float = 5.0):
        super().__init__()
        d = width
        self.elements, self.width, self.cutoff = elements, width, cutoff
        self.node_encoder, self.edge_encoder, self.time_encoder = MLP(elements, d, d), MLP(4, d, d), MLP(d // 2 * 2, d, d)
        self.edge_blocks = nn.ModuleList(MLP(3 * d, d, d, d) for _ in range(blocks))
        self.node_blocks = nn.ModuleList(MLP(2 * d, d, d, d) for _ in range(blocks))
        self.decoder = MLP(d, d, 3, norm=False)
        self.register_buffer("frequencies", torch.randn(d // 2))

    def forward(self, species, senders, receivers, displacements, distances, sigma):
        """Score [n, 3] in 1/A of a (disjoint) graph.

        Args:
          species: [n] index of each atom's element.
          senders: [e] atom an edge starts at.
          receivers: [e] atom it ends at.
          displacements: [e, 3] from receiver to sender, A.
          distances: [e] A.
          sigma: scalar tensor, A.
        """
        phase = 2 * math.pi * (sigma / SCALE) * self.frequencies
        time = self.time_encoder(torch.cat([torch.cos(phase), torch.sin(phase)]))
        h = self.node_encoder(nn.functional.one_hot(species, self.elements).to(displacements.dtype)) + time
        edge = self.edge_encoder(torch.cat([displacements, distances[:, None]], dim=-1))
        for message, update in zip(self.edge_blocks, self.node_blocks, strict=True):
            edge = edge + message(torch.cat([h[senders], h[receivers], edge], dim=-1))
            inbox = torch.zeros_like(h).index_add(0, receivers, edge)
            h = h + update(torch.cat([h, inbox], dim=-1))
        return self.decoder(h) / sigma
