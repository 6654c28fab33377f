"""Raw networks F(x, noise_level, cond). They know no schedule."""
