"""What lets a run survive: its directory, checkpoints, checksums, signals and log."""
