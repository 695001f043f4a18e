"""Tuning methods, one module each; discovered by their METHOD or METHODS."""
