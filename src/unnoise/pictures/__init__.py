"""Pictures: arrays in, pictures out. What stands here knows no model, no schedule and no run folder."""
