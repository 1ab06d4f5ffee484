"""Guided reverse SDE of GLASS: the denoised estimate, the gradient of the misfit by autograd, Euler-Maruyama; eager, compiled or batched."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from .graph import images, radius_graph
from .model import SCALE, MeshGraphNet
from .spectra import PairDistribution, gaussian_sum


def ladder(start: float, steps: int, *, end: float = 0.001) -> torch.Tensor:
    """Noise levels [steps + 1], A: sigma = 0.8 A t on an even grid in t from ``start`` to ``end``."""
    return SCALE * torch.linspace(start, end, steps + 1, dtype=torch.float64)


class Guidance:
    """s_guide = -(w / sum_c n_c) dL/dx0 with L = sum_c n_c^2 and n_c = |y_c - F_c(x0)|.

    Attributes:
      rows: pairs of an observable ([replicas, n, 3] -> [replicas, m]) and its data [m].
      weight: w, in the units of the data (3000 for g(r) of silicon in the paper).
    """

    def __init__(self, rows: Sequence[tuple[PairDistribution, torch.Tensor]], weight: float):
        self.rows, self.weight = list(rows), float(weight)

    def __call__(self, estimate: torch.Tensor) -> torch.Tensor:
        """Push [replicas, n, 3] in 1/A at the denoised estimate [replicas, n, 3]; nothing flows back into the network."""
        with torch.enable_grad():
            x = estimate.detach().requires_grad_(True)
            squares = torch.stack([((data - observable(x)) ** 2).sum(-1) for observable, data in self.rows])
            (gradient,) = torch.autograd.grad(squares.sum(), x)
        norms = squares.detach().sqrt().sum(0)
        return -(self.weight / norms)[:, None, None] * gradient


class ReverseSDE:
    """x += (s_i^2 - s_{i+1}^2) score + sqrt(s_i^2 - s_{i+1}^2) z, for replicas of one cell that share the noise level.

    Attributes:
      network: score network.
      species: [n] index of each atom's element.
      cell: [3, 3] rows, A.
      guidance: see `Guidance`, or None for the prior alone.
      score_network: what is called: the network itself or its compiled form.
    """

    def __init__(self, network: MeshGraphNet, species: torch.Tensor, cell: torch.Tensor, guidance: Guidance | None = None):
        self.network, self.species, self.cell, self.guidance = network.eval().requires_grad_(False), species, cell, guidance
        self.shifts = images(cell, network.cutoff).to(cell.device)
        self.score_network = self.network

    def compiled(self, **options) -> ReverseSDE:
        """The same sampler with network and histogram (forward and backward) through `torch.compile`, for any number of edges and pairs.

        Choosing the pairs stays eager: its output shape depends on the data. Options go to `torch.compile`.
        """
        made = ReverseSDE(self.network, self.species, self.cell, self.guidance)
        made.score_network = torch.compile(self.network, dynamic=True, **options)
        if self.guidance is not None:
            rows = []
            for observable, data in self.guidance.rows:
                faster = copy.copy(observable)
                faster.sum_pairs = torch.compile(gaussian_sum, dynamic=True, **options)
                rows.append((faster, data))
            made.guidance = Guidance(rows, self.guidance.weight)
        return made

    @torch.no_grad()
    def score(self, positions: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Guided score [replicas, n, 3] in 1/A."""
        edges = radius_graph(positions, self.cell, self.network.cutoff, self.shifts)
        species = self.species.repeat(positions.shape[0])
        score = self.score_network(species, *edges, sigma).reshape(positions.shape)
        if self.guidance is None:
            return score
        return score + self.guidance(positions + sigma**2 * score)

    def step(self, positions: torch.Tensor, sigma: float, following: float, noise: torch.Tensor | None) -> torch.Tensor:
        """One step [replicas, n, 3] from level ``sigma`` to ``following`` (A); ``noise`` [replicas, n, 3] is standard normal, None for none."""
        variance = float(sigma) ** 2 - float(following) ** 2
        moved = positions + variance * self.score(positions, torch.tensor(float(sigma)).to(positions))
        return moved if noise is None else moved + variance**0.5 * noise

    def run(self, positions, levels, *, kick=None, noise=None, reached: float = 0.0, end_noise: bool = False, generator=None) -> list[torch.Tensor]:
        """Trajectory [steps + 1] of positions [replicas, n, 3] down ``levels`` [steps + 1] (A).

        What is missing from level ``reached`` to the first is added before: x + sqrt(s_0^2 - reached^2) kick.

        Args:
          positions: [replicas, n, 3] A.
          levels: [steps + 1] A, descending.
          kick: [replicas, n, 3] standard normal; drawn if None.
          noise: [steps, replicas, n, 3] standard normal; drawn if None.
          reached: A, level of ``positions``.
          end_noise: add noise on the last step too; the paper does not.
          generator: of the random numbers.
        """

        def draw():
            return torch.randn(positions.shape, generator=generator, dtype=positions.dtype, device=positions.device)

        missing = max(float(levels[0]) ** 2 - reached**2, 0.0) ** 0.5
        states = [positions + missing * (draw() if kick is None else kick)]
        for index in range(len(levels) - 1):
            quiet = index == len(levels) - 2 and not end_noise
            z = None if quiet else draw() if noise is None else noise[index]
            states.append(self.step(states[-1], levels[index], levels[index + 1], z))
        return states


def two_stage(prior: ReverseSDE, guided: ReverseSDE, positions: torch.Tensor, *, steps: tuple[int, int] = (512, 512), generator=None) -> torch.Tensor:
    """The benchmark protocol: the prior alone from t = 1 to 0.001, then guided from t = 0.6 to 0.001 -> positions [replicas, n, 3]."""
    first, second = ladder(1.0, steps[0]), ladder(0.6, steps[1])
    clean = prior.run(positions, first, generator=generator)[-1]
    return guided.run(clean, second, reached=float(first[-1]), generator=generator)[-1]


def inductor_works() -> tuple[bool, str]:
    """Whether `torch.compile` can generate code here, and if not, why."""
    try:
        torch.compile(lambda x: torch.sin(x) + 1.0)(torch.ones(4))
    except Exception as error:
        return False, f"torch.compile's code generator does not work here: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return True, ""
