"""GGUF files: the reader, which knows neither models nor engines."""
