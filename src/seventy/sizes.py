"""How sizes are written for a reader: one unit everywhere, GB of 10^9 bytes."""


def size(nbytes: float) -> str:
    """Return a number of bytes as GB (10^9) or, below one, MB (10^6): "44.4 GB", "98.4 MB"."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 999_950_000 else f"{nbytes / 1e6:.1f} MB"


def module_size(nbytes: int) -> str:
    """Return a memory module or a CPU's cache by the name it is sold under: a module of 2^36 bytes is a "64 GB" one."""
    return f"{nbytes / 2**30:g} GB" if nbytes >= 2**30 else f"{nbytes / 2**20:g} MB"
