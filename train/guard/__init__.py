"""Looks at held-out prompts while a policy is tuned, and the rules that stop it."""
