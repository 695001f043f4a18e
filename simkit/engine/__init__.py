"""Replaying: a trace's ops on an arch become counted rows."""
