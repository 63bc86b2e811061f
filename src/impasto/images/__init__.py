"""Pictures and videos: files, tensors, colour, optical flow."""
