"""The gated delta rule (Yang et al. 2024, Gated Delta Networks): a matrix for each head, decayed and corrected by rows.

Every head has a matrix S [dim keys, dim values] in f32. A row makes S = decay * S, then S += k (v - S^T k)^T beta, and
asks it: o = S^T q. Rows follow one another; heads, and columns of S, do not know of each other. So a thread takes a
head's matrix some columns at a time, which stay in its nearest cache while all rows go over them, and what the next row
will want of them is summed while they are written: memory is read and written once a row.

A matrix lies as blocks of COLUMNS columns, [dim / COLUMNS, dim, COLUMNS]. A step reads it from one state and writes it
to another (cache/states.py). There is no way back from a row, so what is written is S before the drafted rows of a
text. Of those a log keeps what they do to S; the next step repeats it for the ones that turned out right, the same sums
in the same order.
"""

from seventy.jit.build import Module, Value
from seventy.jit.simd import exp, fma, softplus
from seventy.jit.types import f32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import inverse_rms
from seventy.kernels.short_convolution import MAX_PENDING, segment_of

ARGUMENTS = (
    "segments", "starts", "states", "memory", "state_bytes", "log", "input", "input_stride", "decay", "decay_stride",
    "beta", "beta_stride", "decay_rate", "decay_bias", "gate", "gate_stride", "norm", "epsilon", "output",
    "output_stride",
)  # fmt: skip
COLUMNS = 32
_LANES = 16


def log_shape(dim: int, heads: int) -> tuple[int, int, int]:
    """Return the shape of a state's log: of each value head and drafted row its key, value, decay and beta."""
    return heads, MAX_PENDING, 2 * dim + _LANES


def build(module: Module, dim: int, key_heads: int, value_heads: int, tiled: bool) -> None:
    """Build the kernel of the gated delta rule: output[row, head] = RMSNorm(S^T q / sqrt(dim); norm, epsilon) *
    silu(gate[row, head]).

    S is the head's recurrent matrix. A row of `input` has the queries and the keys of `key_heads` heads and the values
    of `value_heads` heads, of `dim` each, a multiple of 16. Value head h uses key head h % key_heads if heads are
    `tiled`, else h * key_heads // value_heads. Segments and states are as in kernels/short_convolution.py; a state's
    log (log_shape) lies `log` bytes behind its matrices.

    A head's decay is exp(decay_rate * softplus(decay + decay_bias)), and sigmoid(beta) is the rate at which a row
    corrects S; both overwrite `decay` and `beta`, f32 for each row and value head.
    """
    k = Kernel(module, ARGUMENTS)
    f, lanes = k.f, module.isa.lanes
    columns = COLUMNS if dim % COLUMNS == 0 else _LANES
    # As many vectors of columns at once as registers hold the sums of.
    vector, many = f32 * lanes, min(4, columns // lanes)
    with k.claim(k.count("segments") * value_heads) as item:
        segment, head = item // value_heads, item % value_heads
        first, last, old, new, pending, drafted = segment_of(k, segment)
        key_head = head % key_heads if tiled else head // (value_heads // key_heads)
        output = k("output", pointer) + head * (4 * dim)
        decays, betas = k("decay", pointer) + head * 4, k("beta", pointer) + head * 4
        _make_gates(k, first, last, head, decays, betas)
        log = head * (MAX_PENDING * _record(dim)) + k("log")
        rows = _Rows(k, dim, key_heads, key_head, head, first, old + log + pending * _record(dim))
        right = last - drafted
        _write_log(k, rows, right, last, dim, new + log)
        # The matrix after drafted rows, some columns of it, is nobody's.
        matrix, scratch = head * (4 * dim * dim), f.memory(4 * dim * columns)
        with f.loop(0, dim, columns) as block, f.loop(0, 4 * columns, 4 * lanes * many) as part:
            # Where the columns lie in the first row of the matrix, and which of a row of values they are.
            place, at = matrix + block * (4 * dim) + part, block * 4 + part
            known = [f.variable(vector, 0) for _ in range(many)]
            first_key = rows.key(first - pending)
            with f.loop(dim) as i:
                key = f.broadcast(vector, first_key, i * 4)
                for v, total in enumerate(known):
                    s = f.load(vector, old + place, i * (4 * columns) + 4 * lanes * v)
                    total.set(fma(s, key, total.get()))
            source = f.variable(pointer, old + place)
            with f.loop(first - pending, last) as row:
                decay, beta = (f.broadcast(vector, address) for address in (rows.decay(row), rows.beta(row)))
                deltas = []
                for v, total in enumerate(known):
                    value = f.load(vector, rows.value(row), at + 4 * lanes * v)
                    deltas.append((value - decay * total.get()) * beta)
                    total.set(0)
                answers = [f.variable(vector, 0) for _ in range(many)]
                here, asked, following = rows.key(row), rows.query(row), rows.key((row + 1).minimum(last - 1))
                reading, target = source.get(), (row < right).select(new + place, scratch)
                with f.loop(dim) as i:
                    key, query, next_key = (f.broadcast(vector, at_row, i * 4) for at_row in (here, asked, following))
                    for v, delta in enumerate(deltas):
                        of = i * (4 * columns) + 4 * lanes * v
                        s = fma(key, delta, f.load(vector, reading, of) * decay)
                        f.store(s, target, of)
                        answers[v].set(fma(s, query, answers[v].get()))
                        known[v].set(fma(s, next_key, known[v].get()))
                # What pending rows answered is known; the first row writes over it.
                answer_at = output + row.maximum(first) * k("output_stride")
                for v, answer in enumerate(answers):
                    f.store(answer.get() * dim**-0.5, answer_at, at + 4 * lanes * v)
                source.set(target)
        with f.loop(first, last) as row:
            gate = k("gate", pointer) + row * k("gate_stride") + head * (4 * dim)
            _normalise_and_gate(k, output + row * k("output_stride"), gate, dim)


def _record(dim: int) -> int:
    """Bytes of a row in a head's log."""
    return 4 * log_shape(dim, 1)[-1]


class _Rows:
    """Where a head's numbers of a row are: in the step's inputs, of rows before the first in the log."""

    def __init__(
        self, k: Kernel, dim: int, key_heads: int, key_head: Value, head: Value, first: Value, log_end: Value
    ) -> None:
        """`log_end` is where the record of row `first` would stand."""
        self._k, self._dim, self._first, self._log_end = k, dim, first, log_end
        self._queries = k("input", pointer) + key_head * (4 * dim)
        self._keys = self._queries + 4 * dim * key_heads
        self._values = k("input", pointer) + 8 * dim * key_heads + head * (4 * dim)
        self._decays, self._betas = k("decay", pointer) + head * 4, k("beta", pointer) + head * 4

    def _at(self, row: Value, of_first_row: Value, stride: str, in_record: int) -> Value:
        record = self._log_end + (row - self._first) * _record(self._dim) + in_record
        return (row < self._first).select(record, of_first_row + row * self._k(stride))

    def key(self, row: Value) -> Value:
        return self._at(row, self._keys, "input_stride", 0)

    def query(self, row: Value) -> Value:
        """Return the query of a row; for a row in the log any numbers."""
        return self._at(row, self._queries, "input_stride", 0)

    def value(self, row: Value) -> Value:
        return self._at(row, self._values, "input_stride", 4 * self._dim)

    def decay(self, row: Value) -> Value:
        return self._at(row, self._decays, "decay_stride", 8 * self._dim)

    def beta(self, row: Value) -> Value:
        return self._at(row, self._betas, "beta_stride", 8 * self._dim + 4)


def _write_log(k: Kernel, rows: _Rows, right: Value, last: Value, dim: int, log: Value) -> None:
    f = k.f
    with f.loop(right, last) as row:
        record = log + (row - right) * _record(dim)
        key, value = rows.key(row), rows.value(row)
        with f.loop(0, 4 * dim, 4 * _LANES) as i:
            f.store(f.load(f32 * _LANES, key, i), record, i)
            f.store(f.load(f32 * _LANES, value, i), record + 4 * dim, i)
        f.store(f.load(f32, rows.decay(row)), record, 8 * dim)
        f.store(f.load(f32, rows.beta(row)), record, 8 * dim + 4)


def _make_gates(k: Kernel, first: Value, last: Value, head: Value, decays: Value, betas: Value) -> None:
    f = k.f
    rate, bias = (f.load(f32, k(name, pointer), head * 4) for name in ("decay_rate", "decay_bias"))
    with f.loop(first, last) as row:
        decay, beta = row * k("decay_stride"), row * k("beta_stride")
        f.store(exp(rate * softplus(f.load(f32, decays, decay) + bias)), decays, decay)
        f.store(1.0 / (exp(-f.load(f32, betas, beta)) + 1.0), betas, beta)


def _normalise_and_gate(k: Kernel, x: Value, gate: Value, dim: int) -> None:
    f, vector = k.f, f32 * _LANES
    factor = inverse_rms(k, x, f.constant(i64, dim)).splat(_LANES)
    with f.loop(0, 4 * dim, 4 * _LANES) as i:
        z = f.load(vector, gate, i)
        normalised = f.load(vector, x, i) * factor * f.load(vector, k("norm", pointer), i)
        f.store(normalised * (z / (exp(-z) + 1.0)), x, i)
