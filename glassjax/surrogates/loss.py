"""What a surrogate is trained on: components of the site spectra, and the error of one noisy copy of one cell."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import replace
from glassjax.neighbors import NeighborSpec, build
from glassjax.priors.loss import random_rotation
from glassjax.structure import Structure
from glassjax.surrogates.surrogate import decode


def principal_components(spectra: np.ndarray, share: float = 0.999, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(mean [points], basis [p, points]) of site spectra [sites, points]: directions times deviations that hold ``share`` of the variance."""
    spectra = np.asarray(spectra, dtype=float)
    mean = spectra.mean(axis=0)
    _, values, directions = np.linalg.svd(spectra - mean, full_matrices=False)
    part = np.cumsum(values**2) / np.sum(values**2)
    count = max(least, int(np.searchsorted(part, share)) + 1)
    return mean, directions[:count] * (values[:count, None] / math.sqrt(len(spectra)))


def spectrum_loss(key, network, params, structure: Structure, labels, sigma, spec: NeighborSpec, *, mean, basis, chosen, relabel=None):
    """Mean squared error per site and point of one noisy copy of one cell, in units of the variance of the training spectra.

    The network is told sigma, so with clean labels it learns the spectrum expected of a structure known to within sigma; with ``relabel`` it learns
    that of the noisy structure. For a network that is not invariant the noisy structure is rotated at random.

    Args:
      key: random key of the noise (and rotation).
      network: of `glassjax.surrogates.networks`.
      params: its parameters.
      structure: clean structure.
      labels: [n, points] its spectra.
      sigma: noise level, A.
      spec: neighbour list at the network's cutoff.
      mean, basis: see `principal_components`.
      chosen: [n] which atoms have a spectrum.
      relabel: optional function of a structure that gives its spectra [n, points], under jit.

    Returns:
      (loss, needed): the loss, and what the neighbour list needed (int32 [3]).
    """
    noise_key, rotation_key = jax.random.split(key)
    noisy = replace(structure, positions=structure.positions + sigma * jax.random.normal(noise_key, structure.positions.shape))
    graph = build(noisy, spec)
    if relabel is not None:
        labels = relabel(noisy)
    if not network.principal:
        graph = replace(graph, displacements=graph.displacements @ random_rotation(rotation_key))
    out = network.apply({"params": params}, graph.to_jraph(structure.species, sigma, reverse=True, rows=network.in_rows))
    error = jnp.where(chosen[:, None], decode(network, mean, basis, out) - labels, 0.0)
    return jnp.sum(error**2) / (jnp.sum(chosen) * jnp.sum(basis**2)), graph.needed
