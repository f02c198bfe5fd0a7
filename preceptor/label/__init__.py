"""Labelling runs, and trials of a constitution."""
