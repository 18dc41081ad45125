"""Editions: folders of units that `datasets.load_dataset` opens."""
