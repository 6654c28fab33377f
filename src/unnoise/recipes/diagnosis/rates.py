"""The learning rates that networks bear."""

HIGH_RATES = {"adam": 0.02, "adamw": 0.02, "muon": 0.02, "lion": 0.005, "sgd": 2.0}
"""Learning rates above which hardly any network is trained, by optimizer; ten times as much none."""
