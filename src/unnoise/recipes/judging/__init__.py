"""Judging models and folders of samples: what is judged, beside what, by which numbers, and the page that tells of it."""
