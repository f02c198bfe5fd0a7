"""Rows of the user's files to token batches."""
