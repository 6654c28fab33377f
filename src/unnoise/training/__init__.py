"""How a model learns: the loop, the moving average of its weights, checkpoints, validation."""
