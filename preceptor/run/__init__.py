"""The pipeline of a run folder."""
