"""The training loop, and the data it reads."""
