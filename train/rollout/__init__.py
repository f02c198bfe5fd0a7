"""Replies drawn from the policy, here or on a server, and where their rewards come from."""
