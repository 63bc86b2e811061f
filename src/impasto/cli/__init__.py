"""The commands and their flags; nothing here loads torch at import."""
