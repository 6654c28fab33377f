"""How good samples are: distances to the data, and whether they show what was asked for."""
