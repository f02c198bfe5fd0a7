"""What learns from feedback: reward models, policies, and the shipped tiny model."""
