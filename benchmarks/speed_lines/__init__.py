"""The lines of ``benchmarks/speed.py``: pairs of computations, built on first use."""
