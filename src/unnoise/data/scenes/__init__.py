"""Scenes of coloured shapes: what can be asked for, how it is said in words, and how it is drawn."""
