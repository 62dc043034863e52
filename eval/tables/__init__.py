"""Tables that are measured row by row."""
