"""`preceptor train`: adapters from revisions, preferences and rewards. Torch is imported by the command that trains."""
