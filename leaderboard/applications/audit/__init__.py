"""Audit of the units that are described with given words, such as faces."""
