"""What this installation promises, measured where it runs."""
