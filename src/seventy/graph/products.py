"""Rows of floats and what matrices make of them: the products, norms and experts that models write down.

An activation is made where its first matrix wants it, in the kind that the matrix's format multiplies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from seventy.formats import PANEL
from seventy.graph.buffers import Buffer, Memory
from seventy.graph.operations import Array, Operations
from seventy.graph.reads import Reads
from seventy.graph.weights import Matrix, Table, Weights
from seventy.jit.compiler import Kernel
from seventy.kernels import (
    activations,
    cap,
    combine,
    embedding,
    experts,
    finite,
    heads,
    matmul,
    mixed,
    pack,
    residual,
    route,
    scale,
)
from seventy.kernels.activations import KINDS

# A claim is one stretch of memory: long, for memory is read fastest in long stretches (docs/lab.md), but with at
# least eight claims for each thread, so that none waits long for another.
_CLAIM_BYTES = 1 << 20
_CLAIMS_PER_THREAD = 8
_MATMUL, _EXPERTS, _HEADS = (f"seventy.kernels.{name}:build" for name in ("matmul", "experts", "heads"))


@dataclass(slots=True)
class Activation:
    """An input of matrices: how to make it, and in which kinds it has been made already."""

    source: str
    a: Buffer
    b: Memory | Array | None
    b_stride: int
    rows: int
    capacity: int
    row_map: Array | None
    reads: tuple[Memory, ...]
    made: dict[tuple[str, bool], Memory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouterRule:
    """How a router chooses `used` experts for each row (kernels/route.py).

    `scoring` is the function applied to its scores. The weights of the chosen experts are normalised if asked for and
    multiplied by `scale`. Of `groups` groups of experts only the best `groups_used` take part.
    """

    used: int
    scoring: route.Scoring = "softmax"
    normalise: bool = False
    scale: float = 1.0
    groups: int = 1
    groups_used: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """The routing of rows to experts with their weights. A slot is one row at one of its experts.

    `numbers` are the slots' own numbers.
    """

    used: int
    weights: Memory
    slots: Memory
    inputs: Memory
    active: NDArray[np.int32]
    starts: Memory
    numbers: NDArray[np.int32]

    @property
    def memory(self) -> tuple[object, ...]:
        return self.weights, self.slots, self.inputs, self.active, self.starts


def _one(number: float) -> NDArray[np.float32]:
    """Return an array of this one number."""
    return np.array([number], np.float32)


class Products(Operations):
    """The part of a program that does not use the memory of texts. The inputs of a step are `tokens` and `outputs`."""

    def __init__(
        self,
        weights: Weights,
        max_rows: int,
        max_outputs: int,
        epsilon: float,
        threads: int,
        thread_nodes: Sequence[int],
    ) -> None:
        super().__init__()
        self.weights, self.threads = weights, threads
        self._thread_nodes: NDArray[np.int64] = np.array(thread_nodes, np.int64)
        self.max_rows, self.max_outputs = max_rows, max_outputs
        self.tokens: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.outputs: NDArray[np.int32] = np.zeros(max_outputs, np.int32)
        # Rows of the step, rows that want logits, slots of experts, heads of rows that have a matrix each, segments.
        self.counts: NDArray[np.int64] = np.zeros(5, np.int64)
        self.slots_per_row = self.heads_per_row = 0
        # Where each head of each row is, of those that have a matrix each.
        self._head_numbers: NDArray[np.int32] | None = None
        # What the operations that are being written read; what a step reads.
        self._reads = self._step_reads = Reads()
        # 1 for each row, and for each row of logits, with something in it that is no number; 0 before a step.
        self.bad_rows: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.bad_outputs: NDArray[np.int32] = np.zeros(max_outputs, np.int32)
        self.epsilon = _one(epsilon)
        self.hidden: Buffer | None = None
        self.logits: Buffer | None = None

    # What architectures use

    def buffer(self, columns: int, outputs: bool = False) -> Buffer:
        """Return rows of `columns` floats: one for each row of the step, or for each row that wants logits."""
        stride = 4 * PANEL * -(-columns // PANEL)
        capacity = self.max_outputs if outputs else self.max_rows
        return Buffer(Memory(capacity * stride), columns, stride, capacity, self.counts.ctypes.data + 8 * outputs)

    def result(self, hidden: Buffer, logits: Buffer) -> None:
        """Name what a step gives: the last layer's rows, and the logits of those that want them.

        Both are kept until the next step, and their rows are checked for what is no number.
        """
        self.hidden, self.logits = hidden, logits
        hidden.memory.kept = logits.memory.kept = True
        self._check(hidden, self.bad_rows)
        self._check(logits, self.bad_outputs)

    def expect(self, x: Activation, matrix: Matrix) -> None:
        """Compute the logits as x times the matrix transposed, overwriting the step's."""
        assert self.logits is not None
        self.matmul(x, matrix, self.logits)
        self._check(self.logits, self.bad_outputs)

    def end_of_step(self) -> None:
        """Say that a step of the model has no more operations: those to come are run on their own."""
        super().end_of_step()
        self._reads = Reads()

    def _check(self, buffer: Buffer, bad: NDArray[np.int32]) -> None:
        """bad[row] = 1 where a row has something in it that is no number."""
        self._add(
            Kernel("seventy.kernels.finite:build"),
            finite.ARGUMENTS,
            reads=(buffer.memory,),
            writes=(bad,),
            rows=buffer.count,
            input=buffer.memory,
            stride=buffer.stride,
            bad=bad,
        )

    def embed(self, matrix: Matrix, into: Buffer, factor: float = 1.0) -> None:
        """Compute into[row] = factor * matrix[token of the row]."""
        self._add(
            Kernel("seventy.kernels.embedding:build", (matrix.format.name,)),
            embedding.ARGUMENTS,
            reads=(),
            writes=(into.memory,),
            rows=into.count,
            panels=matrix.address,
            blocks=matrix.blocks,
            tokens=self.tokens,
            output=into.memory,
            output_stride=into.stride,
        )
        if matrix.scale is not None:
            self._scale(into, matrix.scale, into)
        if factor != 1:
            self._scale(into, _one(factor), into)

    def embed_from_file(self, table: Table, into: Buffer) -> None:
        """Compute into[row] = table[token of the row], which was read before the step (Table.read)."""
        format = table.format
        table.rows = np.zeros((into.capacity, table.row_bytes), np.uint8)
        panels = Memory(-(-into.capacity // PANEL) * table.blocks * format.panel_block)
        self._add(
            Kernel("seventy.kernels.pack:build_of_rows", (format.name,)),
            pack.ARGUMENTS,
            reads=(),
            writes=(panels,),
            rows=into.count,
            input=table.rows,
            row_bytes=table.row_bytes,
            blocks=table.blocks,
            output=panels,
        )
        self._add(
            Kernel("seventy.kernels.embedding:build", (format.name,)),
            embedding.ARGUMENTS,
            reads=(panels,),
            writes=(into.memory,),
            rows=into.count,
            panels=panels,
            blocks=table.blocks,
            tokens=np.arange(into.capacity, dtype=np.int32),
            output=into.memory,
            output_stride=into.stride,
        )

    def mixed(
        self,
        tokens: Buffer,
        projected: Buffer,
        first: int,
        norm: NDArray[np.float32],
        factors: tuple[float, float],
    ) -> Buffer:
        """Combine a layer's columns of both inputs, from `first` on (kernels/mixed.py)."""
        width = len(norm)
        into = self.buffer(width)
        assert width % PANEL == 0 and tokens.stride == projected.stride, f"{width} of {tokens.stride} bytes"
        self._add(
            Kernel("seventy.kernels.mixed:build", (width,)),
            mixed.ARGUMENTS,
            reads=(tokens.memory, projected.memory),
            writes=(into.memory,),
            rows=into.count,
            tokens=tokens.memory,
            projected=projected.memory,
            stride=tokens.stride,
            start=4 * first,
            norm=norm,
            epsilon=self.epsilon,
            factors=np.array(factors, np.float32),
            output=into.memory,
        )
        return into

    def plain(self, a: Buffer) -> Activation:
        """Use the rows unchanged as the input of matrices."""
        return Activation("plain", a, None, 0, a.count, a.capacity, None, (a.memory,))

    def norm(self, a: Buffer, weight: NDArray[np.float32], outputs_only: bool = False) -> Activation:
        """Use the RMSNorm of the rows, or of those that need logits, as the input of matrices."""
        if outputs_only:
            count = self.counts.ctypes.data + 8
            return Activation("norm", a, weight, 0, count, self.max_outputs, self.outputs, (a.memory,))
        return Activation("norm", a, weight, 0, a.count, a.capacity, None, (a.memory,))

    def normalised(self, a: Buffer, weight: NDArray[np.float32]) -> Buffer:
        """Compute the RMSNorm of the rows as rows of whole panels."""
        assert a.stride == 4 * a.columns, f"rows of {a.columns} floats in {a.stride} bytes"
        rows = self._made(self.norm(a, weight), "f32", one_by_one=True)
        return Buffer(rows, a.columns, a.stride, a.capacity, a.count)

    def add_normalised(
        self, a: Buffer, weight: NDArray[np.float32], into: Buffer, factor: NDArray[np.float32] | None = None
    ) -> None:
        """Compute into += RMSNorm of the rows; then multiply it by the single number in `factor`."""
        assert a.stride == into.stride, f"rows of {a.stride} and {into.stride} bytes"
        self._add(
            Kernel("seventy.kernels.residual:build"),
            residual.ARGUMENTS,
            reads=(a.memory, into.memory),
            writes=(into.memory,),
            rows=a.count,
            input=a.memory,
            columns=a.columns,
            stride=a.stride,
            weight=weight,
            epsilon=self.epsilon,
            factor=_one(1.0) if factor is None else factor,
            output=into.memory,
        )

    def cap(self, a: Buffer, most: float) -> None:
        """Compute a = most * tanh(a / most)."""
        self._add(
            Kernel("seventy.kernels.cap:build"),
            cap.ARGUMENTS,
            reads=(a.memory,),
            writes=(a.memory,),
            rows=a.count,
            input=a.memory,
            stride=a.stride,
            cap=_one(most),
        )

    def gated(self, gate: Buffer, up: Buffer, activation: str = "swiglu") -> Activation:
        """Use silu(gate) * up, or another such product (kernels/activations.py), as the input of matrices."""
        reads = (gate.memory, up.memory)
        return Activation(activation, gate, up.memory, up.stride, gate.count, gate.capacity, None, reads)

    def matmul(
        self, x: Activation, matrix: Matrix, into: Buffer, bias: NDArray[np.float32] | None = None, add: bool = False
    ) -> None:
        """Compute into = x times the matrix transposed, plus the bias; or add that to `into`."""
        if matrix.scale is not None:
            product = into if bias is None and not add else replace(into, memory=Memory(into.memory.nbytes))
            self._multiply(x, matrix, product)
            self._scale(product, matrix.scale, into, bias, add)
        else:
            self._multiply(x, matrix, into, bias, add)

    def _multiply(
        self, x: Activation, matrix: Matrix, into: Buffer, bias: NDArray[np.float32] | None = None, add: bool = False
    ) -> None:
        made = self._made(x, matrix.format.activation)
        if x.rows == self.counts.ctypes.data:
            self._reads.rows += matrix.nbytes
        else:
            self._reads.outputs += matrix.nbytes
        panel_bytes = matrix.blocks * matrix.format.panel_block
        self._add(
            Kernel(_MATMUL, (matrix.format.name,)),
            matmul.ARGUMENTS,
            reads=(made, into.memory) if add else (made,),
            writes=(into.memory,),
            rows=x.rows,
            panels=matrix.address,
            n_panels=matrix.panels,
            blocks=matrix.blocks,
            chunk=max(1, min(_CLAIM_BYTES // panel_bytes, matrix.panels // (_CLAIMS_PER_THREAD * self.threads))),
            input=made,
            capacity=x.capacity,
            output=into.memory,
            output_stride=into.stride,
            bias=bias,
            accumulate=int(add),
            nodes=len(self.weights.nodes),
            thread_nodes=self._thread_nodes,
            weight_bytes=matrix.nbytes,
        )

    def _scale(
        self,
        product: Buffer,
        factor: NDArray[np.float32],
        into: Buffer,
        bias: NDArray[np.float32] | None = None,
        add: bool = False,
    ) -> None:
        """into = factor * product, plus the bias; or that is added to what is there."""
        self._add(
            Kernel("seventy.kernels.scale:build", (bias is not None, add)),
            scale.ARGUMENTS,
            reads=(product.memory, into.memory) if add else (product.memory,),
            writes=(into.memory,),
            rows=product.count,
            input=product.memory,
            stride=into.stride,
            factors=factor,
            output=into.memory,
            bias=bias,
        )

    def route(self, scores: Buffer, rule: RouterRule, bias: NDArray[np.float32] | None = None) -> Routes:
        """Choose each row's experts by its scores, one for each expert.

        The `bias` of each expert, in whole panels, counts for choosing only.
        """
        assert self.slots_per_row in (0, rule.used), "layers that use different numbers of experts"
        self.slots_per_row = rule.used
        slots, n_experts = self.max_rows * rule.used, scores.columns
        # Read after the step: how many experts were read.
        active: NDArray[np.int32] = np.zeros(1 + n_experts, np.int32)
        bias = np.zeros(-(-n_experts // PANEL) * PANEL, np.float32) if bias is None else bias
        parameters = (n_experts, rule.used, rule.scoring, rule.normalise, rule.groups, rule.groups_used)
        done = Memory(8, kept=True)
        weights, places, inputs, starts = (Memory(4 * n) for n in (slots, slots, slots, 1 + n_experts))
        numbers = np.arange(slots, dtype=np.int32)
        routes = Routes(rule.used, weights, places, inputs, active, starts, numbers)
        self._add(
            Kernel("seventy.kernels.route:build", parameters),
            route.ARGUMENTS,
            reads=(scores.memory,),
            writes=(*routes.memory, done),
            rows=scores.count,
            scores=scores.memory,
            score_stride=scores.stride,
            bias=bias,
            scale=_one(rule.scale),
            weights=weights,
            slots=places,
            inputs=inputs,
            active=active,
            starts=starts,
            done=done,
        )
        return routes

    def experts(
        self,
        x: Activation,
        routes: Routes,
        gate: Matrix,
        up: Matrix,
        down: Matrix,
        into: Buffer,
        biases: Sequence[NDArray[np.float32] | None] = (None, None, None),
        activation: str = "swiglu",
        shared: tuple[Activation, Matrix] | None = None,
        shared_gate: Buffer | None = None,
        add: bool = True,
    ) -> None:
        """Compute into += sum over each row's experts of weight * down(silu(gate x) * up x), in order of rank.

        Without `add`, `into` is overwritten. `biases` are added to the outputs of gate, up and down: f32, whole panels
        per expert. `activation` is as in `gated`. The product of `shared`, for every row, is added last, times the
        sigmoid of `shared_gate` if that is given. It is computed beside the experts, so that it needs no barriers of
        its own.
        """
        self._reads.experts.append((routes.active, sum(matrix.nbytes // matrix.experts for matrix in (gate, up, down))))
        first, second = (self._slot_buffer(gate.rows) for _ in range(2))
        out = self._slot_buffer(down.rows)
        self._multiply_experts(x, routes, gate, first, routes.inputs, biases[0])
        self._multiply_experts(x, routes, up, second, routes.inputs, biases[1])
        everyones = self.buffer(into.columns) if shared else None
        if shared and everyones:
            self.matmul(*shared, everyones)
        acted = self.gated(first, second, activation)
        self._multiply_experts(acted, routes, down, out, routes.numbers, biases[2])
        assert out.stride == into.stride, f"rows of {out.stride} and {into.stride} bytes"
        more = [buffer for buffer in (everyones, shared_gate, into if add else None) if buffer]
        parameters = (routes.used, shared is not None, shared_gate is not None, add)
        self._add(
            Kernel("seventy.kernels.combine:build", parameters),
            combine.ARGUMENTS,
            reads=(routes.weights, routes.slots, out.memory, *(buffer.memory for buffer in more)),
            writes=(into.memory,),
            rows=into.count,
            weights=routes.weights,
            slots=routes.slots,
            input=out.memory,
            stride=into.stride,
            output=into.memory,
            shared=everyones.memory if everyones else 0,
            gate=shared_gate.memory if shared_gate else 0,
            gate_stride=shared_gate.stride if shared_gate else 0,
        )

    def _slot_buffer(self, columns: int) -> Buffer:
        """Return rows of `columns` floats, one for each slot."""
        stride, capacity = 4 * PANEL * -(-columns // PANEL), self.max_rows * self.slots_per_row
        return Buffer(Memory(capacity * stride), columns, stride, capacity, self.counts.ctypes.data + 16)

    def _multiply_experts(
        self,
        x: Activation,
        routes: Routes,
        matrix: Matrix,
        into: Buffer,
        inputs: Memory | NDArray[np.int32],
        bias: NDArray[np.float32] | None,
    ) -> None:
        """into[slot] = x[inputs[slot]] times the matrix of the slot's expert, plus its bias."""
        made = self._made(x, matrix.format.activation, one_by_one=True)
        panel_bytes = matrix.blocks * matrix.format.panel_block
        self._add(
            Kernel(_EXPERTS, (matrix.format.name,)),
            experts.ARGUMENTS,
            reads=(made, *routes.memory),
            writes=(into.memory,),
            panels=matrix.address,
            n_panels=matrix.panels,
            blocks=matrix.blocks,
            chunk=max(1, min(_CLAIM_BYTES // panel_bytes, matrix.panels)),
            input=made,
            capacity=x.capacity,
            inputs=inputs,
            active=routes.active,
            starts=routes.starts,
            output=into.memory,
            output_stride=into.stride,
            bias=None if matrix.scale is not None else bias,
            weight_bytes=matrix.nbytes // matrix.experts * routes.used,
        )
        if matrix.scale is not None:
            self._add(
                Kernel("seventy.kernels.scale:build_of_experts", (bias is not None,)),
                scale.ARGUMENTS,
                reads=(into.memory, *routes.memory),
                writes=(into.memory,),
                stride=into.stride,
                factors=matrix.scale,
                output=into.memory,
                bias=bias,
                active=routes.active,
                starts=routes.starts,
            )

    def multiply_heads(self, x: Buffer, matrix: Matrix, into: Buffer) -> None:
        """Compute into[row, head] = x[row, head] times the head's matrix transposed.

        Rows of x and `into` are divided into equal parts, one per head; only the first columns of each part are used.
        """
        n = matrix.experts
        assert self.heads_per_row in (0, n) and matrix.rows % PANEL == 0, f"{n} heads, {matrix.rows} rows"
        assert x.stride == 4 * x.columns, f"rows of {x.columns} floats in {x.stride} bytes"
        self.heads_per_row = n
        if self._head_numbers is None:
            self._head_numbers = np.arange(n, dtype=np.int32)[:, None] + n * np.arange(x.capacity, dtype=np.int32)
        count = self.counts.ctypes.data + 24
        parts = Buffer(x.memory, matrix.columns, x.stride // n, x.capacity * n, count)
        made = self._made(self.plain(parts), matrix.format.activation, one_by_one=True)
        self._reads.rows += matrix.nbytes
        panel_bytes = matrix.blocks * matrix.format.panel_block
        claims = matrix.panels * n // (_CLAIMS_PER_THREAD * self.threads)
        self._add(
            Kernel(_HEADS, (matrix.format.name,)),
            heads.ARGUMENTS,
            reads=(made,),
            writes=(into.memory,),
            rows=x.count,
            heads=n,
            panels=matrix.address,
            n_panels=matrix.panels,
            blocks=matrix.blocks,
            chunk=max(1, min(_CLAIM_BYTES // panel_bytes, matrix.panels, claims)),
            input=made,
            capacity=parts.capacity,
            numbers=self._head_numbers,
            output=into.memory,
            output_stride=into.stride,
            head_stride=4 * into.columns // n,
            weight_bytes=matrix.nbytes,
        )

    # What the engine uses

    def count(self, rows: int, outputs: int, segments: int) -> None:
        """Set how many rows, rows that need logits, and segments (texts) the next step has."""
        self.counts[:] = rows, outputs, rows * self.slots_per_row, rows * self.heads_per_row, segments

    def step_bytes(self) -> int:
        """Return what the last step read of the matrices, in bytes: each once, of experts those that rows went to."""
        return self._step_reads.last(bool(self.counts[1]))

    def step_experts(self) -> float:
        """Return how many different experts the last step read, of a layer with experts on average; 0 without any."""
        return self._step_reads.last_experts()

    def bytes_of_one_row(self, outputs: bool = True) -> int:
        """Return what a step of one row reads of the matrices, in bytes: with its logits, or without."""
        return self._step_reads.one_row(self.slots_per_row, outputs)

    def bytes_of_one_guess(self, outputs: bool = True) -> int:
        """Return the same of a block of multi-token prediction."""
        return self._reads.one_row(self.slots_per_row, outputs)

    def _made(self, x: Activation, kind_name: str, one_by_one: bool = False) -> Memory:
        """Return the activation in this kind, in tiles or row by row, made where it is first wanted."""
        key = kind_name, one_by_one
        if key not in x.made:
            memory = x.made[key] = Memory(KINDS[kind_name].nbytes(x.capacity, x.a.columns))
            self._add(
                Kernel("seventy.kernels.activations:build", (x.source, kind_name, one_by_one)),
                activations.ARGUMENTS,
                reads=x.reads,
                writes=(memory,),
                rows=x.rows,
                output=memory,
                capacity=x.capacity,
                columns=x.a.columns,
                a=x.a.memory,
                a_stride=x.a.stride,
                b=x.b,
                b_stride=x.b_stride,
                epsilon=self.epsilon,
                row_map=x.row_map,
            )
        return x.made[key]
