"""Files: their paths, locks, and writing them whole or not at all."""
