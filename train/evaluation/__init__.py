"""What a trained model is worth: comparisons, report cards, probes."""
