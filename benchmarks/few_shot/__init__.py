"""The parts of ``benchmarks/few_shot_meta.py``."""
