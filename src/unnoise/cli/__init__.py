"""The command line: parses, calls, draws progress. No tensor mathematics stands here."""
