"""Pictures of coloured shapes, read by a program and held against what was asked for."""
