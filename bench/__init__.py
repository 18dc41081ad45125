"""Costs of the suite, as ratios measured in one run: `make bench`."""
