"""Measurements of speed, each a program of its own: `python benchmarks/step_time.py --help`."""
