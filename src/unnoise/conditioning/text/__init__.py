"""Words: tokenizers, encoders of our own and of others, and prompts with weights and any length."""
