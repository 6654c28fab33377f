"""Which solver, of which order, at which times, with which weights: found for one model and one budget of network calls."""
