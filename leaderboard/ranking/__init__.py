"""Tracks, and the order of their tables."""
