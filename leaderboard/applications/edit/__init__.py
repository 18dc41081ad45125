"""Edit of a network: ablation of the units described as text."""
