"""Whole runs as typed recipes, and what runs them."""
