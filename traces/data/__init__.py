"""Data sets: items, batches, and the sets that packages carry."""
