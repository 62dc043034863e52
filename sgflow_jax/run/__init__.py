"""A run's directory: opening and claiming it, checkpoints, checksums, signals and logs."""
