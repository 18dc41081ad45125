"""Tallies: statistics of one layer over a stream of activations."""
