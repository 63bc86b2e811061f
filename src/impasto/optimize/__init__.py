"""Engine 2: the picture is the parameter."""
