"""Statistics of a layer over a stream of activations."""
