"""What a training would take, predicted: time, memory, disk."""
