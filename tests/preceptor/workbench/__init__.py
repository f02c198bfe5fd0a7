"""Constitutions and prompts before anything is labelled."""
