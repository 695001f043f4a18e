"""Traces from other tools, edits, statistics and synthesis."""
