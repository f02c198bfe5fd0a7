"""GRPO and RLOO, on TRL's trainers."""
