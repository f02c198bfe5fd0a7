"""Figures about a judge, and attacks on it."""
