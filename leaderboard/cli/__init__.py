"""Command line: one module per verb of `milan`."""
