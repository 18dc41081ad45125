"""Hooks on the layers of a network: reading, ablating and replaying them."""
