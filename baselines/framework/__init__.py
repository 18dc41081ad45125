"""Framework of the baselines: interface, registry, running, resuming and checking methods."""
