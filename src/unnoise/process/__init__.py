"""The noising process: schedules, the closed form, conversions, the discrete chain."""
