"""A policy beside its baseline, by a judge and by oracles."""
