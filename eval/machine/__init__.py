"""What training costs on a machine."""
