"""What can be asked for: words, labels and pictures, as tensors that networks take."""
