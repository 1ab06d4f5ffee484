"""Shared fixtures. Rank promotion is an error in every test: a missing axis must not broadcast silently."""

import os
import tempfile
from pathlib import Path

from glassjax.cli import processor

# the workers of pytest-xdist, notebooks and command lines of one run (and the next run) compile each program once; read before JAX is imported
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"glassjax-tests-{os.getuid()}-{processor()}"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # false alarms about features of the processor
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# sharding is run on several devices in a subprocess; here results must not depend on the machine's matrix units
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture
def x64():
    """64-bit numbers inside one test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def data_folder() -> Path:
    """The folder of public data; skips where it is absent."""
    root = Path(os.environ.get("GLASSJAX_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no data folder {root}; set GLASSJAX_DATA")
    return root


@pytest.fixture
def quick_compile():
    """Compile with little optimisation (a third less time); for tests of values, not of reproducibility to the last bit."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
