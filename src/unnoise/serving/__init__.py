"""The engine behind HTTP: the shapes that existing clients speak, and one of its own."""
