"""PPO with roles on one base."""
