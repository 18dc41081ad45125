"""The checkpoints of 2022: reading and converting them."""
