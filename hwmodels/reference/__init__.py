"""Slow twins of the kernels, written cycle by cycle from the definitions, for tests and readers."""
