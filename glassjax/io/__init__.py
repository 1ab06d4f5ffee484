"""Files in and out: measured curves, and structures through ASE."""

from .atoms import from_atoms, read_structures, to_atoms
from .measured import Measured, check_function, read_measured

__all__ = ["Measured", "check_function", "from_atoms", "read_measured", "read_structures", "to_atoms"]
