"""Scoring of descriptions against references."""
