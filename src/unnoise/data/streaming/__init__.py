"""Data that does not fit into memory: shards, an index made once, and samples that are read as they are needed."""
