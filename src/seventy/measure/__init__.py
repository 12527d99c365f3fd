"""What this machine can do, measured with kernels, and what holds it back."""
