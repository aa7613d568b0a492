"""Measures the program on a machine with a GPU that is borrowed for some minutes; see README.md."""
