"""The interface of description methods, their registry, and how they are run."""
