"""Files in and out: measured curves, and structures through ASE."""

from .atoms import from_atoms, read_rmc6f, read_structures, to_atoms
from .header import Header, read_header
from .identify import Identification, identify
from .measured import Measured, check_function, read_measured
from .writers import write_columns, write_structures

__all__ = [
    "Header",
    "Identification",
    "Measured",
    "check_function",
    "from_atoms",
    "identify",
    "read_header",
    "read_measured",
    "read_rmc6f",
    "read_structures",
    "to_atoms",
    "write_columns",
    "write_structures",
]
