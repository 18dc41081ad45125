"""Images to run a network on, from folders, `datasets`, Python objects and generators."""
