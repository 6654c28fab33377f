"""What is wrong with a recipe or a run, why, and what to do about it."""
