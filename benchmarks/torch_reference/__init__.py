"""The original GLASS protocol in PyTorch, written from the paper (Guo and Schwalbe-Koda, arXiv:2603.23210; PHYSICS.md section 1): what glassjax is
measured against. It needs the extra ``bench``. `model` is the network, `graph` the all-pairs radius graph, `spectra` the Gaussian-histogram g(r),
`sampler` guidance and the reverse SDE (eager, compiled, batched), `convert` takes weights from glassjax.
`benchmarks/run.py` times them: its rows torch-*.
"""
