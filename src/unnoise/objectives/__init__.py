"""What is learned: losses, the density of times, and the weight of each time."""
