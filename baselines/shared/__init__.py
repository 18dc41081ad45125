"""Code that several description methods share."""
