"""The studio: a page of six rooms on which models are watched, steered and trained. It draws, and computes nothing itself."""
