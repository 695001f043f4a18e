"""Measuring GEMMs and sparse kernels, and reading measurements of others."""
