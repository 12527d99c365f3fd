"""Models by name: where they come from and which are on this disk."""
