"""Where bulk work is done. One file a place: in this process, or by the workers of a Ray cluster."""
