"""The mini world: scenes, units and networks whose answers are known."""
