"""Every family of kernels, and their objects at every level: in the cache before the tests that want them."""

import os
from collections.abc import Iterator
from typing import get_args

from seventy.formats import formats
from seventy.jit import compiler
from seventy.jit.compiler import Kernel
from seventy.jit.isa import LEVELS, Isa, supported
from seventy.kernels.activations import KINDS
from seventy.kernels.pages import KINDS as KV_KINDS
from seventy.kernels.route import Scoring

TOPK = Kernel("seventy.kernels.topk:build")
_FORMATS, _SOURCES = [f.name for f in formats().values()], ("plain", "norm", "swiglu", "geglu", "clamped_swiglu")
# The products of experts and heads are those of matmul: one format of each kind of activation.
_OF_EACH_KIND = {f.activation: f.name for f in formats().values()}.values()
_ROPES = [(interleaved, not interleaved, kv, interleaved) for interleaved in (True, False) for kv in KV_KINDS]
# Attention without and with sinks and a window.
_MORE = ((False, False), (True, True))
ALL = [
    *(Kernel(f"seventy.kernels.{family}:build", (f,)) for family in ("matmul", "pack", "embedding") for f in _FORMATS),
    *(Kernel("seventy.kernels.activations:build", (source, kind)) for source in _SOURCES for kind in KINDS),
    *(Kernel("seventy.kernels.rope:build", (2, 3, 64, 64, *how)) for how in _ROPES),
    *(Kernel("seventy.kernels.attention:build", (2, 3, 64, 64, kv, *more)) for kv in KV_KINDS for more in _MORE),
    *(Kernel(f"seventy.kernels.{family}:build", (f,)) for family in ("experts", "heads") for f in _OF_EACH_KIND),
    *(Kernel("seventy.kernels.latent:build", (5, 96, 64, kv)) for kv in KV_KINDS),
    *(Kernel("seventy.kernels.latent_store:build", (5, 64, 32, 32, kv)) for kv in KV_KINDS),
    Kernel("seventy.kernels.scale:build", (True, True)),
    Kernel("seventy.kernels.scale:build_of_experts", (True,)),
    *(Kernel("seventy.kernels.route:build", (8, 2, scoring, True, 4, 2)) for scoring in get_args(Scoring)),
    Kernel("seventy.kernels.combine:build", (2, True, True)),
    Kernel("seventy.kernels.combine:build", (2, False, False, False)),
    *(Kernel(f"seventy.kernels.{name}:build") for name in ("residual", "cap", "finite")),
    Kernel("seventy.kernels.run:build"),
    TOPK,
]  # fmt: skip

# With what this CPU has beyond its level, too: the tests look for those.
ALL_LEVELS = tuple(dict.fromkeys([*LEVELS.values(), *supported()]))


def objects(level: Isa) -> Iterator[tuple[Kernel, bytes]]:
    """Each kernel's object: from the cache, else compiled by every core, and kept there."""
    missing = []
    for kernel in ALL:
        data = compiler._read_cached(compiler.cache_folder() / compiler._key(kernel, level))
        if data is None:
            missing.append(kernel)
        else:
            yield kernel, data
    for kernel, data in compiler._compile_all(missing, level, os.cpu_count() or 1):
        compiler._write_cached(compiler.cache_folder() / compiler._key(kernel, level), data)
        yield kernel, data
