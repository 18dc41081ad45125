"""Analysis of the units that the accuracy of a network depends on."""
