"""Reproduction of the tables and applications of the paper, and training of its model."""
