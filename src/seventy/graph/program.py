"""A model as a flat list of kernel calls; architectures in models/ write it line by line.

The program is laid out once, for the most rows a step may have. A step fills in a few numbers (tokens, positions,
block tables, which rows want logits) and the team runs the list; nothing of Python runs in between. What stands here
reads and writes what is remembered of texts; products stand in graph/products.py, the list in graph/operations.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy.cache.pages import Pages
from seventy.cache.pages import pages as n_pages
from seventy.cache.spec import Paged
from seventy.cache.states import States
from seventy.formats import PANEL
from seventy.graph.buffers import Buffer, Memory
from seventy.graph.products import Products
from seventy.graph.weights import Weights
from seventy.jit.compiler import Kernel
from seventy.kernels import attention, delta_rule, hidden, latent, latent_store, rope, short_convolution


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """The tables of cosines and sines by which kernels/rope.py rotates `dim` dimensions of each head."""

    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]
    dim: int
    interleaved: bool


@dataclass(frozen=True, slots=True)
class DeltaHeads:
    """Heads of the delta rule, `dim` wide; which key head a value head has is as in kernels/delta_rule.py."""

    dim: int
    keys: int
    values: int
    tiled: bool


class Program(Products):
    """A model's list and memory. More inputs of a step are `positions`, `segments`, `tables` and `slots`.

    `segments` says for each row which row of `tables` has its sequence's pages, and of `slots` for layers with windows.
    For recurrent layers, `starts` are the first row of each segment and at last the number of rows, `segment_states`
    the state that each reads, the one it writes, rows pending in the first, and how many of its own are drafted. For an
    assistant, `last_read` is the last position of each row's sequence that has keys and values.
    """

    def __init__(
        self,
        weights: Weights,
        pages: Pages,
        states: States,
        context: int,
        max_rows: int,
        max_outputs: int,
        epsilon: float,
        threads: int,
        thread_nodes: Sequence[int] = (),
    ) -> None:
        """Lay out for steps of up to `max_rows` rows and for sequences of up to `context` positions.

        Claims are sized for `threads` threads; `thread_nodes` is the node of each, of those the weights are split over.
        """
        super().__init__(weights, max_rows, max_outputs, epsilon, threads, thread_nodes)
        self.pages, self.states, self.context = pages, states, context
        self.positions: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.last_read: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.segments: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.tables: NDArray[np.int32] = np.zeros((max_rows, n_pages(context)), np.int32)
        self.slots: NDArray[np.int32] = np.zeros_like(self.tables)
        self.starts: NDArray[np.int32] = np.zeros(max_rows + 1, np.int32)
        self.segment_states: NDArray[np.int32] = np.zeros((max_rows, 4), np.int32)
        self._caches = {layer: object() for layer in pages.paged}
        self._kept = object()
        self._scratch: dict[tuple[int, ...], Memory] = {}

    def rotate_and_store(
        self,
        queries: Buffer,
        keys: Buffer,
        values: Buffer,
        layer: int,
        tables: RotaryTables,
        norms: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
        norm_values: bool = False,
    ) -> None:
        """Apply RoPE to queries (in place) and keys, and store keys and values in the layer's cache.

        `norms` are the weights of an RMSNorm of each query's and each key's head, applied before. With `norm_values`,
        each value's head gets an RMSNorm without weights. `values` may be the same as `keys`.
        """
        spec = self.pages.paged[layer]
        group = queries.columns // (spec.kv_heads * spec.key_dim)
        norm = norms is not None
        shape = (spec.kv_heads, group, spec.key_dim, tables.dim, tables.interleaved)
        query_norm, key_norm = norms or (None, None)
        self._add(
            Kernel("seventy.kernels.rope:build", (*shape, norm, self.pages.kind, norm_values)),
            rope.ARGUMENTS,
            reads=(queries.memory, keys.memory, values.memory),
            writes=(queries.memory, keys.memory, self._caches[layer]),
            rows=queries.count,
            **self._sequences(layer),
            coarse=tables.coarse,
            fine=tables.fine,
            queries=queries.memory,
            query_stride=queries.stride,
            keys=keys.memory,
            key_stride=keys.stride,
            values=values.memory,
            value_stride=values.stride,
            cache=self.pages.address(layer),
            n_pages=self.pages.pages_of(layer),
            query_norm=query_norm,
            key_norm=key_norm,
            epsilon=self.epsilon,
        )

    def rotate(
        self, queries: Buffer, layer: int, tables: RotaryTables, norm: NDArray[np.float32], before: bool = False
    ) -> None:
        """Apply RMSNorm with these weights and RoPE to each head of the queries, in place."""
        spec = self.pages.paged[layer]
        heads = queries.columns // spec.key_dim
        shape = (heads, 1, spec.key_dim, tables.dim, tables.interleaved)
        self._add(
            Kernel("seventy.kernels.rope:build", (*shape, True, self.pages.kind, False, False)),
            rope.ARGUMENTS,
            reads=(queries.memory,),
            writes=(queries.memory,),
            rows=queries.count,
            **self._sequences(layer, before),
            coarse=tables.coarse,
            fine=tables.fine,
            queries=queries.memory,
            query_stride=queries.stride,
            query_norm=norm,
            epsilon=self.epsilon,
        )

    def attention(
        self,
        queries: Buffer,
        into: Buffer,
        layer: int,
        scales: NDArray[np.float32],
        scale_span: int,
        sinks: NDArray[np.float32] | None = None,
        before: bool = False,
    ) -> None:
        """Compute into = softmax(scale * queries . keys) . values for every head, over what each row sees of its own
        past.

        A row at position p has the scale scales[p // scale_span]. `sinks` are a score of each head that has no value
        (kernels/attention.py). With `before`, a row stands after all positions that have been read of its sequence, and
        has no key of its own: it sees those up to `last_read`, in a window one less.
        """
        spec = self.pages.paged[layer]
        group = queries.columns // (spec.kv_heads * spec.key_dim)
        scratch = self._attention_scratch(spec, group)
        shape = (spec.kv_heads, group, spec.key_dim, spec.value_dim, self.pages.kind)
        self._add(
            Kernel("seventy.kernels.attention:build", (*shape, sinks is not None, spec.window is not None)),
            attention.ARGUMENTS,
            reads=(queries.memory, self._caches[layer]),
            writes=(into.memory, scratch),
            rows=queries.count,
            **self._sequences(layer, before),
            queries=queries.memory,
            query_stride=queries.stride,
            cache=self.pages.address(layer),
            n_pages=self.pages.pages_of(layer),
            scales=scales,
            scale_span=scale_span,
            output=into.memory,
            output_stride=into.stride,
            scratch=scratch,
            sinks=sinks,
            window=spec.window - before if spec.window else 0,
        )

    def keep(self, x: Buffer, norm: NDArray[np.float32] | None = None, outputs_only: bool = False) -> None:
        """Keep the rows, or those that want logits, by their positions; normalised where `norm` has the weights."""
        self._add(
            Kernel("seventy.kernels.hidden:build_keep", (norm is not None,)),
            hidden.KEEP_ARGUMENTS,
            reads=(x.memory,),
            writes=(self._kept,),
            rows=self.counts.ctypes.data + 8 * outputs_only,
            **self._kept_places(x.columns),
            input=x.memory,
            stride=x.stride,
            norm=norm,
            row_map=self.outputs if outputs_only else None,
        )

    def join(self, embedding: Buffer, norms: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None) -> Buffer:
        """Return the embeddings, and behind each what was kept of the position before it.

        Both are normalised where `norms` has the weights for it.
        """
        into = self.buffer(2 * embedding.columns)
        embedding_norm, norm = norms or (None, None)
        self._add(
            Kernel("seventy.kernels.hidden:build_join", (norms is not None,)),
            hidden.JOIN_ARGUMENTS,
            reads=(embedding.memory, self._kept),
            writes=(into.memory,),
            rows=embedding.count,
            **self._kept_places(embedding.columns),
            embedding=embedding.memory,
            embedding_stride=embedding.stride,
            embedding_norm=embedding_norm,
            norm=norm,
            output=into.memory,
            output_stride=into.stride,
        )
        return into

    def _kept_places(self, columns: int) -> dict[str, Any]:
        """Return the arguments that say where what is kept of each row's text is."""
        assert self.pages.kept is not None and columns % PANEL == 0, f"{columns} columns"
        return {
            "positions": self.positions,
            "segments": self.segments,
            "tables": self.tables,
            "table_stride": self.tables.strides[0],
            "cache": self.pages.address(self.pages.kept),
            "columns": columns,
            "epsilon": self.epsilon,
        }

    def store_latent(
        self,
        queries: Buffer,
        keys: Buffer,
        norm: NDArray[np.float32],
        into: Buffer,
        layer: int,
        tables: RotaryTables,
    ) -> None:
        """Apply RMSNorm and RoPE to the keys and store them in the layer's cache; rotate the last part of each query's
        head.

        The rotated parts of the queries are written to the last part of each head in `into`.
        """
        spec = self.pages.paged[layer]
        n = into.columns // spec.key_dim
        nope = queries.columns // n - tables.dim
        assert spec.key_dim == spec.value_dim + tables.dim and tables.interleaved, str(spec)
        parameters = (n, spec.value_dim, nope, tables.dim, self.pages.kind)
        self._add(
            Kernel("seventy.kernels.latent_store:build", parameters),
            latent_store.ARGUMENTS,
            reads=(queries.memory, keys.memory),
            writes=(into.memory, self._caches[layer]),
            rows=queries.count,
            **self._sequences(layer),
            coarse=tables.coarse,
            fine=tables.fine,
            queries=queries.memory,
            query_stride=queries.stride,
            keys=keys.memory,
            key_stride=keys.stride,
            norm=norm,
            epsilon=self.epsilon,
            latent=into.memory,
            latent_stride=into.stride,
            cache=self.pages.address(layer),
        )

    def latent_attention(
        self, queries: Buffer, into: Buffer, layer: int, scales: NDArray[np.float32], scale_span: int
    ) -> None:
        """Compute into = softmax(scale * queries . keys) . values for all heads, which share a key that begins with its
        value.

        A row at position p has the scale scales[p // scale_span].
        """
        spec = self.pages.paged[layer]
        n = queries.columns // spec.key_dim
        key = n, spec.value_dim
        if key not in self._scratch:
            self._scratch[key] = Memory(latent.scratch_bytes(*key), kept=True)
        self._add(
            Kernel("seventy.kernels.latent:build", (n, spec.key_dim, spec.value_dim, self.pages.kind)),
            latent.ARGUMENTS,
            reads=(queries.memory, self._caches[layer]),
            writes=(into.memory, self._scratch[key]),
            rows=queries.count,
            **self._sequences(layer),
            queries=queries.memory,
            query_stride=queries.stride,
            cache=self.pages.address(layer),
            scales=scales,
            scale_span=scale_span,
            output=into.memory,
            output_stride=into.stride,
            scratch=self._scratch[key],
        )

    def short_convolution(
        self, x: Buffer, into: Buffer, weights: NDArray[np.float32], layer: int, dim: int, normalised: int
    ) -> None:
        """Compute into = silu(causal convolution of x); then scale the first `normalised` heads of `dim` to length 1.

        `weights` are [taps, channels].
        """
        self._convolution(x, into, weights, layer, (dim, normalised))

    def gated_convolution(
        self, x: Buffer, before: Buffer, after: Buffer, into: Buffer, weights: NDArray[np.float32], layer: int
    ) -> None:
        """Compute x *= before, then into = after * causal convolution of x.

        `weights` are [taps, channels].
        """
        dim = next(dim for dim in (64, 32, 16) if weights.shape[1] % dim == 0)
        self._convolution(x, into, weights, layer, (dim, 0), (before, after))

    def _convolution(
        self,
        x: Buffer,
        into: Buffer,
        weights: NDArray[np.float32],
        layer: int,
        heads: tuple[int, int],
        gates: tuple[Buffer, Buffer] | None = None,
    ) -> None:
        """Both convolutions: `heads` are how wide one is and how many are normalised; with `gates`, x is changed."""
        (taps, channels), (dim, normalised) = weights.shape, heads
        before, after = (gate.memory for gate in gates) if gates else (0, 0)
        self._add(
            Kernel("seventy.kernels.short_convolution:build", (taps, dim, channels // dim, normalised, bool(gates))),
            short_convolution.ARGUMENTS,
            reads=(x.memory, *(gate.memory for gate in gates or ())),
            writes=(x.memory, into.memory) if gates else (into.memory,),
            **self._states(layer, 0),
            before=before,
            after=after,
            input=x.memory,
            input_stride=x.stride,
            weights=weights,
            epsilon=self.epsilon,
            output=into.memory,
            output_stride=into.stride,
        )

    def delta_rule(
        self,
        x: Buffer,
        decay: Buffer,
        beta: Buffer,
        gate: Buffer,
        into: Buffer,
        layer: int,
        heads: DeltaHeads,
        rate_and_bias: tuple[NDArray[np.float32], NDArray[np.float32]],
        norm: NDArray[np.float32],
    ) -> None:
        """Compute the outputs of the layer's recurrent matrices for the rows of x, normalised and gated
        (kernels/delta_rule.py).

        `decay` and `beta`, one number per value head, are overwritten.
        """
        rate, bias = rate_and_bias
        self._add(
            Kernel("seventy.kernels.delta_rule:build", (heads.dim, heads.keys, heads.values, heads.tiled)),
            delta_rule.ARGUMENTS,
            reads=(x.memory, decay.memory, beta.memory, gate.memory),
            writes=(into.memory, decay.memory, beta.memory),
            **self._states(layer, 1),
            log=self.states.address(layer, 2) - self.states.address(layer, 1),
            input=x.memory,
            input_stride=x.stride,
            decay=decay.memory,
            decay_stride=decay.stride,
            beta=beta.memory,
            beta_stride=beta.stride,
            decay_rate=rate,
            decay_bias=bias,
            gate=gate.memory,
            gate_stride=gate.stride,
            norm=norm,
            epsilon=self.epsilon,
            output=into.memory,
            output_stride=into.stride,
        )

    def _attention_scratch(self, spec: Paged, group: int) -> Memory:
        """Return the scratch of attention of this shape, one for all its layers.

        Its counters must be zero when a step begins, and each step leaves them so.
        """
        key = spec.kv_heads, group, spec.value_dim
        if key not in self._scratch:
            self._scratch[key] = Memory(attention.scratch_bytes(*key), kept=True)
        return self._scratch[key]

    def _sequences(self, layer: int, before: bool = False) -> dict[str, Any]:
        """Return the arguments that say which position of which sequence each row is, and where a layer keeps those."""
        tables = self.tables if self.pages.paged[layer].window is None else self.slots
        return {
            "positions": (self.last_read if before else self.positions),
            "segments": self.segments,
            "tables": tables,
            "table_stride": tables.strides[0],
        }

    def _states(self, layer: int, which: int) -> dict[str, Any]:
        """Return the arguments that say where segments find and leave one of a recurrent layer's arrays."""
        return {
            "segments": self.counts.ctypes.data + 32,
            "starts": self.starts,
            "states": self.segment_states,
            "memory": self.states.address(layer, which),
            "state_bytes": self.states.nbytes,
        }
