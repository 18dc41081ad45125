"""Scoring of descriptions against references, with floors, lift and intervals."""
