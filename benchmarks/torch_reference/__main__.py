"""`python -m benchmarks.torch_reference`: see `time_step`."""

from .time_step import main

main()
