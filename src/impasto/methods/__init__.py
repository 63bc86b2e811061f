"""The methods, one file per paper; a file here is registered by being here."""
