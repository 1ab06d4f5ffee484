"""Weights of a glassjax MeshGraphNet in the PyTorch one."""

from __future__ import annotations

import numpy as np
import torch

from .model import MLP, MeshGraphNet


def frequencies(width: int) -> np.ndarray:
    """The fixed B [width / 2] of glassjax's time features, which are no parameters there."""
    return np.random.default_rng(0).normal(size=width // 2)


def _fill(mlp: MLP, parameters, name: str) -> None:
    """Copy one flax MLP (Dense_i: kernel [in, out], bias; LayerNorm_0: scale, bias)."""
    pairs = [(layer, parameters[f"Dense_{index}"], "kernel") for index, layer in enumerate(mlp.layers)]
    if isinstance(mlp.norm, torch.nn.LayerNorm):
        pairs.append((mlp.norm, parameters["LayerNorm_0"], "scale"))
    if len(pairs) != len(parameters):
        raise ValueError(f"got {name} with {', '.join(sorted(parameters))}; needs {len(pairs)} layers, as glassjax.priors.meshgraphnet writes them")
    for module, source, label in pairs:
        weight = torch.as_tensor(np.array(source[label]).T.copy())
        if weight.shape != module.weight.shape:
            raise ValueError(f"got {name} with a weight of shape {tuple(weight.shape)}; needs {tuple(module.weight.shape)}: check width and blocks")
        module.weight.data.copy_(weight)
        module.bias.data.copy_(torch.as_tensor(np.array(source["bias"])))


def from_params(params, *, elements: int, width: int = 200, blocks: int = 5, cutoff: float = 5.0, dtype=torch.float32) -> MeshGraphNet:
    """A `MeshGraphNet` from the parameters of glassjax's, a nested mapping of arrays.

    Raises:
      ValueError: another network's parameters, or another width or number of blocks.
    """
    network = MeshGraphNet(elements, width=width, blocks=blocks, cutoff=cutoff).to(dtype)
    mlps = [network.decoder, network.node_encoder, network.edge_encoder, network.time_encoder]
    for message, update in zip(network.edge_blocks, network.node_blocks, strict=True):
        mlps += [message, update]
    expected = {f"MLP_{index}" for index in range(len(mlps))}
    if set(params) != expected:
        raise ValueError(f"got parameters {', '.join(sorted(params))}; needs MLP_0 to MLP_{len(mlps) - 1} of a MeshGraphNet of {blocks} blocks")
    for index, mlp in enumerate(mlps):
        _fill(mlp, params[f"MLP_{index}"], f"MLP_{index}")
    network.frequencies.copy_(torch.as_tensor(frequencies(width)))
    return network.eval()


def from_prior(prior, *, dtype=torch.float32) -> MeshGraphNet:
    """The network of a glassjax `Prior` with a MeshGraphNet."""
    one = prior.network
    return from_params(prior.params, elements=one.elements, width=one.width, blocks=one.blocks, cutoff=one.cutoff, dtype=dtype)


def from_checkpoint(path, *, dtype=torch.float32) -> MeshGraphNet:
    """The network of a checkpoint that `glassjax train` wrote."""
    from glassjax.priors.prior import load_prior

    return from_prior(load_prior(path), dtype=dtype)
