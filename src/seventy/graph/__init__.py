"""A model as a program of kernel calls, its buffers and its weights."""
