"""Neural style transfer: repaint a photo in a painting's style."""
