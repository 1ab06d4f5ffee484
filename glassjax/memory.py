"""How much memory a compiled program needs and a device has."""

from __future__ import annotations

from pathlib import Path

import jax

SHARE = 0.85  # of what is free that a program may take


def needed(compiled) -> int:
    """Bytes per device that a compiled program takes while it runs: temporaries, arguments and results, by XLA's analysis."""
    found = compiled.memory_analysis()
    return 0 if found is None else found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def free(devices) -> float:
    """Bytes that one of ``devices`` may still take: the least of them; devices that are CPUs share the machine's. Infinity where nobody says."""
    left = []
    for device in devices:
        stats = device.memory_stats()
        if stats and "bytes_limit" in stats:
            left.append(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    if left:
        return SHARE * min(left)
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return SHARE * 1024 * int(lines["MemAvailable"].split()[0]) / len(devices)
    except (OSError, KeyError, ValueError):
        return float("inf")


def separate(devices) -> bool:
    """Whether the devices have memory of their own, as GPUs have: then many replicas at a time cost nothing else, and are faster."""
    return devices[0].platform != "cpu"


def exhausted(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or (isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error))


class Rechunk(Exception):
    """Go on with ``chunk`` replicas at a time: fewer, because memory is short, or more, because there is room."""

    def __init__(self, chunk: int):
        super().__init__(f"{chunk} replicas at a time")
        self.chunk = chunk
