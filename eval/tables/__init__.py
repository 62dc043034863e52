"""Tables measured row by row, the variants they compare, and their places in documents."""
