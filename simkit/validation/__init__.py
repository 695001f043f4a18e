"""Validation: models against published figures, measured GPUs and processors, and RTL."""
