"""How work is spread over devices and processes."""
