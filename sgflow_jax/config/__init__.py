"""The configuration: its fields, what makes one complete, its flags and its help."""
