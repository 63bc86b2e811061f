"""What the first engine does without style transfer: short recipes that show what a network sees."""
