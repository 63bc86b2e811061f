"""What the commands do: arguments, progress, output."""
