"""Whole runs in virtual time: one seed decides everything that befalls them (docs/simulation.md)."""
