"""Helpers that know nothing of units: files, downloads, caches, terminal output, images."""
