"""Engine 1: a network paints in one pass, at any size."""
