"""Measure speed and memory of the toolbox; for a clone, not part of the wheel."""
