"""MILAN, the reference model: descriptions that maximise log p(d|E) - lambda log p(d)."""
