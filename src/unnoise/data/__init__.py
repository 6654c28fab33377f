"""Data sets: what stands on disk, as tensors with a specification."""
