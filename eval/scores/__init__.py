"""Distances and other scores of samples, and their results."""
