"""What metrics look at: samples as vectors in which like things lie near each other."""
