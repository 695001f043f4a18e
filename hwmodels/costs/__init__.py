"""Costs from structure: energy, leakage, area and cycle time of memories, arithmetic, wires, and whole archs."""
