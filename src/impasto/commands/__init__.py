"""The work of the commands: arguments, progress, output."""
