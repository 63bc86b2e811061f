"""One picture from recipe to file, recorded."""
