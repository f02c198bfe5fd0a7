"""One training from its first step to its last: folder, checkpoints, meter, out-of-memory retry."""
