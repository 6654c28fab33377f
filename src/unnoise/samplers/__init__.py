"""How sampling steps from noise to data: one file a sampler, the grids of times, and the one loop."""
