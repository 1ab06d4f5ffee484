"""Several processes on one task: who takes part, and how they start. They need one file system that all see."""

from __future__ import annotations

import os
from collections.abc import Callable

import jax

JOINING = 300  # s, to wait for the other processes
LAUNCHERS = ("SLURM_PROCID", "OMPI_MCA_orte_hnp_uri")  # variables that Slurm and Open MPI set


def initialise(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> tuple[int, int]:
    """Join the other processes of this run through `jax.distributed`; returns `place`.

    Args:
      coordinator: HOST:PORT of process 0, the same for all; None to take all three from Slurm or Open MPI (one process per GPU, as JAX assigns them).
      processes: how many there are.
      process: which of them this is, from 0.

    Raises:
      ValueError: some of the three without the others, no port, no launcher, or the others do not come.
    """
    given = (coordinator, processes, process)
    if any(v is not None for v in given) and any(v is None for v in given):
        raise ValueError(f"got coordinator, processes, process = {given}; needs all three, such as host0:1234, 2 and 0; or none, under Slurm")
    if coordinator is None and not any(name in os.environ for name in LAUNCHERS):
        raise ValueError("got no coordinator and no Slurm or Open MPI; needs either; pass --coordinator, --processes and --process")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"got coordinator {coordinator!r}; needs HOST:PORT, such as host0:1234; add a free port")
    if processes is not None and not 0 <= process < processes:
        raise ValueError(f"got process {process} of {processes}; needs 0 to {processes - 1}")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from the command line
    try:
        method = None if coordinator is None else "deactivate"
        jax.distributed.initialize(coordinator, processes, process, cluster_detection_method=method, initialization_timeout=JOINING)
    except RuntimeError as error:
        raise ValueError(f"could not start together with the other processes ({error}); check the address and that all were started") from error
    return place()


def place() -> tuple[int, int]:
    """(number of this process, how many there are); (0, 1) without `initialise`."""
    return (jax.process_index(), jax.process_count()) if jax.distributed.is_initialized() else (0, 1)


def agreed(value: float) -> float:
    """The number that process 0 has."""
    if place()[1] == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return float(broadcast_one_to_all(jax.numpy.float32(value)))


def first(action: Callable[[], object]) -> None:
    """Run ``action`` in process 0 while the others wait; where it fails, process 0 raises its error and the others ``RuntimeError``."""
    failure = None
    if place()[0] == 0:
        try:
            action()
        except Exception as error:
            failure = error
    if agreed(float(failure is not None)):
        raise failure or RuntimeError("process 0 stopped with an error; see its message")


def in_lanes(devices: tuple) -> bool:
    """Whether the replicas of a batch run side by side, each a program of its own.

    On a CPU that is twice as fast as one program for all, whose steps leave cores idle and the cache behind; and a replica's last bits depend on
    the others only where a neighbour list overflows, because it grows for all of them.
    """
    return len(devices) == 1 and devices[0].platform == "cpu"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
