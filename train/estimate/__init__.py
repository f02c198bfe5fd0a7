"""What a training would take, foretold: time, memory, disk."""
