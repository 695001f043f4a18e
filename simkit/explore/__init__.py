"""Sweeps, searches and comparisons: many replays, resumable, on processes or a cluster."""
