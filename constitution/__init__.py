"""What "better" means: principles as data, with identity, machine checks and lint. No model, no network."""
