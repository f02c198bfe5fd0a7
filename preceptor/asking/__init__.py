"""Dialogues of the commands, on this machine or on a Ray cluster."""
