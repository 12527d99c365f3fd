"""Ways to multiply a block of weights by inputs, one file each; kernels/matmul.py goes over the blocks."""
