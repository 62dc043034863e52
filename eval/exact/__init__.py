"""Objectives against exact flow maps."""
