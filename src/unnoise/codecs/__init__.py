"""From data as it stands on disk to the space that the model works in, and back."""
