"""Images to run a network on, from folders, `datasets` and generators."""
