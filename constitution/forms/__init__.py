"""Constitutions in the forms of other tools: read, and written."""
