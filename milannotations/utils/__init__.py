"""Helpers without knowledge of units: files, images, terminal output."""
