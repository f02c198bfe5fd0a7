"""What is published: preferences, card, manifest."""
