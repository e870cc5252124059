"""Measurements of speed and memory, behind ``tools/benchmark.py``; what they showed is in ``docs/performance.md``."""
