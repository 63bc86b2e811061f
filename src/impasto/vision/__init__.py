"""What a network sees: short recipes that use the optimisation engine without style transfer."""
