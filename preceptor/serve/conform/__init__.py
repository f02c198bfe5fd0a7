"""A kit that fails on purpose: whether an invented number reaches a trainer's reward."""
