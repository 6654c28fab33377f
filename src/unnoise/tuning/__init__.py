"""Which solver, of which order, at which times: found for one model and one budget of network calls."""
