"""Several processes on one task: who takes part, and how they start."""

from __future__ import annotations

import os

import jax

JOINING = 300  # s, to wait for the other processes


def initialise(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> tuple[int, int]:
    """Join the other processes of this run through `jax.distributed`; returns `place`.

    Args:
      coordinator: HOST:PORT of process 0, the same for all; None to take all three from Slurm, Open MPI or another launcher that JAX knows.
      processes: how many there are.
      process: which of them this is, from 0.

    Raises:
      ValueError: some of the three without the others, no launcher, or the others do not come.
    """
    given = (coordinator, processes, process)
    if any(v is not None for v in given) and any(v is None for v in given):
        raise ValueError(f"got coordinator, processes, process = {given}; needs all three, such as host0:1234, 2 and 0; or none, under Slurm")
    if coordinator is None and not any(name in os.environ for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE")):
        raise ValueError(
            "got no coordinator, and no Slurm or Open MPI around this process; needs either; pass --coordinator, --processes and --process"
        )
    if processes is not None and not 0 <= process < processes:
        raise ValueError(f"got process {process} of {processes}; needs 0 to {processes - 1}")
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=JOINING)
    except RuntimeError as error:
        raise ValueError(f"could not join the other processes at {coordinator} ({error}); check the address and that all were started") from error
    return place()


def place() -> tuple[int, int]:
    """(number of this process, how many there are); (0, 1) without `initialise`."""
    return (jax.process_index(), jax.process_count()) if jax.distributed.is_initialized() else (0, 1)


def together(name: str) -> None:
    """Return when every process has come here."""
    if place()[1] > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def agreed(value: float) -> float:
    """The number that process 0 has."""
    if place()[1] == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return float(broadcast_one_to_all(jax.numpy.float32(value)))
