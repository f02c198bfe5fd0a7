"""The embedded default: a small generated world, its oracle, and one tiny model that lives in it."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped checkpoint; plain transformers loads it."""
