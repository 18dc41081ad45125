"""Exemplars on disk: as a config of an edition, or in the folder format of 2022."""
