"""One engine runs all requests: a queue, shared network calls, previews, cancelling, and what was made on disk."""
