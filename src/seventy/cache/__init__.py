"""What a sequence remembers between steps: pages of keys and values, shared by prefix."""
