"""Comparisons with flow maps that are known exactly."""
