"""Counting loops that kernels share: groups, output tiles, non-zeros, run lengths."""
