"""Measurements of speed and memory, behind ``mmcls_kd bench``; what they showed is in ``docs/performance.md``."""
