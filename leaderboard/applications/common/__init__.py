"""Code that the applications share."""
