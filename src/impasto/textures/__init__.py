"""Textures: pictures that need no photo."""
