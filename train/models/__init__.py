"""Bases, adapters by role, and the device they stand on."""
