"""From a raw network to the denoiser D(x_t, t, cond) = E[x_0 | x_t, cond]; and denoisers that are exact."""
