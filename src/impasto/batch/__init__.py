"""Many pictures, on this machine or on a cluster."""
