"""What the user sees: the terminal, pictures, the lines before and after a run."""
