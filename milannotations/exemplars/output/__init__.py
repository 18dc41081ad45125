"""Computed exemplars, written as an edition or as the folders of 2022."""
