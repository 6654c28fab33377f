"""Numbers that say how far what was made is from real data, each with its error."""
