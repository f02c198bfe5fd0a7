"""What a forward pass gives: log-probabilities of replies, rewards, and the reference's, kept."""
