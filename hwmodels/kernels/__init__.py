"""Cycle kernels: pure numba loops over packed masks, one family a file."""
