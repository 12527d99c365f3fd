"""The kernels' slow twins in numpy."""

import numpy as np

from seventy.formats import Format
from seventy.jit.isa import Isa
from seventy.kernels.abi import tile_widths
from seventy.kernels.activations import KINDS
from seventy.kernels.delta_rule import COLUMNS
from seventy.kernels.pages import BLOCK, PAGE, LatentLayout, Layout
from seventy.kernels.route import Scoring


def tiles(rows: int, widths: tuple[int, ...]) -> list[tuple[int, int]]:
    """(first row, width) of each tile, widest first."""
    found, start = [], 0
    for width in widths:
        while rows - start >= width:
            found.append((start, width))
            start += width
    return found


def quantize(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """q int8 [rows, columns] and scale f32 [rows, columns / block]."""
    blocks = x.reshape(len(x), -1, block)
    amax = np.abs(blocks).max(-1)
    with np.errstate(divide="ignore"):
        inverse = np.where(amax > 0, np.float32(127) / amax, np.float32(0))
    q = np.rint(blocks * inverse[..., None]).astype(np.int8)
    return q.reshape(x.shape), amax * np.float32(1 / 127)


def activations(x: np.ndarray, kind_name: str, capacity: int, isa: Isa) -> np.ndarray:
    """The buffer kernels/activations.py describes, as bytes; rows past those of x are zeros."""
    kind = KINDS[kind_name]
    n = len(x)
    if kind_name == "f32":
        sections = [x.view(np.int32)]
    else:
        q, scale = quantize(x, kind.block)
        sums = [q.reshape(n, -1, size).astype(np.int32).sum(-1) for size in (16, 32)]
        words = q.view(np.int32)
        if kind_name != "q8_256":
            total = sums[0 if kind_name == "q8_16" else 1]
            scaled = (total * scale).astype(np.float32)
            sections = [words, scale.view(np.int32), scaled.view(np.int32), -128 * total]
        else:
            pairs = [_pairs(s) for s in sums]
            offsets = -32 * sums[0]
            if isa.dot == "maddubs":
                low, high = (-32 * q.reshape(n, -1, 4, 2, 2)[..., i, :].astype(np.int32).sum((2, 3)) for i in range(2))
                offsets = ((low & 0xFFFF) | (high << 16)).astype(np.int32)
            sections = [words, scale.view(np.int32), pairs[1], offsets, pairs[0]]
    out = []
    for section in sections:
        place = np.zeros(capacity * section.shape[1], np.int32)
        for start, width in tiles(n, tile_widths(isa.lanes)):
            tile = section[start : start + width].T.reshape(-1)
            place[start * section.shape[1] :][: tile.size] = tile
        out.append(place)
    return np.concatenate(out).view(np.uint8)


def _pairs(sums: np.ndarray) -> np.ndarray:
    """16-bit pairs (0,2) (1,3) of each four sums."""
    four = sums.reshape(len(sums), -1, 4)
    low, high = four[..., :2], four[..., 2:]
    return ((low & 0xFFFF) | (high << 16)).reshape(len(sums), -1).astype(np.int32)


def matmul(x: np.ndarray, blocks: np.ndarray, format: Format, rows: int) -> np.ndarray:
    """float64 [len(x), rows]: quantised activations times dequantised weights."""
    kind = KINDS[format.activation]
    weights = format.dequantize(blocks).reshape(rows, -1).astype(np.float64)
    inputs = x.astype(np.float64)
    if kind.block > 1:
        q, scale = quantize(x, kind.block)
        inputs = (q.reshape(len(x), -1, kind.block) * scale[..., None].astype(np.float64)).reshape(x.shape)
    return inputs @ weights.T


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    x64 = x.astype(np.float64)
    return x64 / np.sqrt((x64 * x64).mean(-1, keepdims=True) + epsilon) * weight


def swiglu(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    gate = gate.astype(np.float64)
    return gate / (1 + np.exp(-np.maximum(gate, -700))) * up


def geglu(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    gate = gate.astype(np.float64)
    twice = 2 * np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
    return gate / (1 + np.exp(-np.maximum(twice, -700))) * up


def route(
    scores: np.ndarray,
    used: int,
    scoring: Scoring,
    normalise: bool,
    scale: float,
    groups: int = 1,
    groups_used: int = 1,
    bias: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The experts of each row and their weights, both [rows, used], the best first."""
    scores = scores.astype(np.float64)
    likelihood = np.exp(scores - scores.max(1, keepdims=True))
    p = {
        "softmax": likelihood / likelihood.sum(1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-scores)),
        "softmax of the chosen": scores,
    }[scoring]
    wish = p if bias is None else p + bias
    grouped = wish.reshape(len(scores), groups, -1)
    if groups > 1:
        best_two = np.sort(grouped, axis=-1)[..., -2:].sum(-1)
        out = np.argsort(-best_two, axis=-1, kind="stable")[:, groups_used:]
        np.put_along_axis(grouped, out[..., None], -np.inf, axis=1)
    chosen = np.argsort(-grouped.reshape(p.shape), axis=1, kind="stable")[:, :used]
    weights = np.take_along_axis(p, chosen, 1)
    if scoring == "softmax of the chosen":
        weights = np.exp(weights - weights.max(1, keepdims=True))
    if normalise or scoring == "softmax of the chosen":
        weights = weights / np.maximum(weights.sum(1, keepdims=True), 2.0**-14)
    return chosen, weights * scale


def sigmoid(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    return up / (1 + np.exp(np.minimum(-gate.astype(np.float64), 700)))


def clamped_swiglu(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    gate, up = np.minimum(gate.astype(np.float64), 7), np.clip(up.astype(np.float64), -7, 7)
    return gate / (1 + np.exp(np.minimum(-1.702 * gate, 700))) * (up + 1)


def rotate(x: np.ndarray, angles: np.ndarray, length: float, interleaved: bool) -> np.ndarray:
    """x [..., head_dim] by angles [..., rope_dim / 2]; dimensions past rope_dim stay."""
    n = 2 * angles.shape[-1]
    turning = x[..., :n].astype(np.float64)
    if interleaved:
        pairs = turning.reshape(*turning.shape[:-1], -1, 2)
    else:
        pairs = np.stack([turning[..., : n // 2], turning[..., n // 2 :]], axis=-1)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles) * length
    parts = np.stack([turned.real, turned.imag], axis=-1)
    if interleaved:
        parts = parts.reshape(turning.shape)
    else:
        parts = np.concatenate([parts[..., 0], parts[..., 1]], axis=-1)
    return np.concatenate([parts, x[..., n:]], axis=-1)


def spread(x: np.ndarray, layout: Layout) -> np.ndarray:
    """x [..., head_dim] times the Hadamard matrix of the layout's size."""
    if not layout.spread:
        return x
    matrix = np.ones((1, 1))
    while len(matrix) < layout.spread:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / np.sqrt(2)
    return (x.reshape(*x.shape[:-1], -1, layout.spread) @ matrix).reshape(x.shape)


def pack_page(keys: np.ndarray, values: np.ndarray, kind: str) -> np.ndarray:
    """The bytes of a page: keys [PAGE, key_dim] and values [PAGE, value_dim]."""
    parts = []
    for numbers, transposed in ((keys, True), (values, False)):
        if kind == "f16":
            element, factors = numbers.astype(np.float16), []
        else:
            element, scale = quantize(numbers.astype(np.float32), BLOCK)
            factors = [scale.T.astype(np.float16)]
        parts += [element.T if transposed else element, *factors]
    return np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])


def unpack_page(page: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Keys [PAGE, key_dim] and values [PAGE, value_dim] as float64."""
    halves = []
    for start, dim, factors, transposed in (
        (0, layout.key_dim, layout.key_factors, True),
        (layout.values, layout.value_dim, layout.value_factors, False),
    ):
        element = page[start : start + layout.element * PAGE * dim]
        numbers = element.view(np.float16 if layout.kind == "f16" else np.int8).astype(np.float64)
        numbers = numbers.reshape(-1, PAGE).T if transposed else numbers.reshape(PAGE, -1)
        if layout.kind == "q8_0":
            scale = page[factors : factors + 2 * PAGE * (dim // BLOCK)].view(np.float16).reshape(-1, PAGE).T
            scale = scale.astype(np.float64)
            numbers = numbers * np.repeat(scale, BLOCK, axis=1)
        halves.append(numbers)
    return halves[0], halves[1]


def attention(
    queries: np.ndarray,
    cache: np.ndarray,
    table: np.ndarray,
    position: int,
    scale: float,
    layout: Layout,
    window: int | None = None,
    sinks: np.ndarray | None = None,
) -> np.ndarray:
    """queries [heads, key_dim] over positions 0 to `position` of a cache u8 [kv_heads, pages, bytes], in float64.

    With a window over the last so many of them only; `sinks` [heads] are scores without a value.
    """
    heads = len(queries)
    group = heads // len(cache)
    out = np.empty((heads, layout.value_dim))
    first = max(0, position + 1 - (window or position + 1))
    begin = first // PAGE
    pages = table[begin : position // PAGE + 1]
    seen = slice(first - begin * PAGE, position + 1 - begin * PAGE)
    for head in range(heads):
        unpacked = [unpack_page(cache[head // group, page], layout) for page in pages]
        keys, values = (np.concatenate([page[i] for page in unpacked])[seen] for i in (0, 1))
        scores = keys @ queries[head] * scale
        largest = scores.max() if sinks is None else max(scores.max(), sinks[head])
        weights = np.exp(scores - largest)
        total = weights.sum() + (0 if sinks is None else np.exp(np.float64(sinks[head]) - largest))
        out[head] = weights / total @ values
    return out


def pack_latent_page(keys: np.ndarray, kind: str) -> np.ndarray:
    """The bytes of a page of keys [PAGE, dim] that hold the values, too."""
    if kind == "f16":
        return keys.astype(np.float16).reshape(-1).view(np.uint8)
    quants, scales = quantize(keys.astype(np.float32), BLOCK)
    return np.concatenate([each.reshape(-1).view(np.uint8) for each in (quants, scales.astype(np.float16))])


def unpack_latent_page(page: np.ndarray, layout: LatentLayout) -> np.ndarray:
    """Keys [PAGE, dim] as float64."""
    element = page[: layout.factors].view(np.float16 if layout.kind == "f16" else np.int8)
    keys = element.astype(np.float64).reshape(PAGE, layout.dim)
    if layout.kind == "q8_0":
        keys *= np.repeat(page[layout.factors :].view(np.float16).astype(np.float64).reshape(PAGE, -1), BLOCK, axis=1)
    return keys


def latent_attention(
    queries: np.ndarray, cache: np.ndarray, table: np.ndarray, position: int, scale: float, value_dim: int,
    layout: LatentLayout,
) -> np.ndarray:  # fmt: skip
    """queries [heads, dim] over positions 0 to `position` of a cache u8 [pages, bytes], in float64."""
    pages = [unpack_latent_page(cache[page], layout) for page in table[: position // PAGE + 1]]
    keys = np.concatenate(pages)[: position + 1]
    scores = queries @ keys.T * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ keys[:, :value_dim]


def short_convolution(
    x: np.ndarray, window: np.ndarray, weights: np.ndarray, dim: int, normalised: int, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, channels] after those of the window [taps - 1, channels], convolved; and the window after them."""
    taps, n = len(weights), len(x)
    seen = np.concatenate([window, x])
    total = sum(seen[j : j + n].astype(np.float64) * weights[j] for j in range(taps))
    out = (total / (1 + np.exp(-total))).reshape(n, -1, dim)
    length = np.sqrt((out * out).sum(-1, keepdims=True) + epsilon)
    out[:, :normalised] /= length[:, :normalised]
    return out.reshape(x.shape), seen[n:]


def delta_rule(
    parts: dict[str, np.ndarray],
    state: np.ndarray,
    dim: int,
    key_heads: int,
    value_heads: int,
    tiled: bool,
    epsilon: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What kernels/delta_rule.py makes of some rows, and the state after them, both in the kernel's order."""
    n = len(parts["input"])
    of = np.arange(value_heads) % key_heads if tiled else np.arange(value_heads) // (value_heads // key_heads)
    keys, values = np.split(parts["input"].astype(np.float64), [2 * key_heads * dim], axis=1)
    queries, keys = (part.reshape(n, key_heads, dim)[:, of] for part in np.split(keys, 2, axis=1))
    values = values.reshape(n, value_heads, dim)
    decay, beta = (parts[name][:, :value_heads].astype(np.float64) for name in ("decay", "beta"))
    rate, bias = (parts[name][:value_heads] for name in ("decay_rate", "decay_bias"))
    decay, beta = np.exp(rate * np.logaddexp(0, decay + bias)), 1 / (1 + np.exp(-beta))
    columns = COLUMNS if dim % COLUMNS == 0 else 16
    # [heads, keys, values] of [heads, blocks, keys, columns].
    blocks = state.reshape(value_heads, dim // columns, dim, columns)
    matrix = blocks.transpose(0, 2, 1, 3).reshape(value_heads, dim, dim).astype(np.float64)
    out = np.empty((n, value_heads, dim))
    for t in range(n):
        matrix = matrix * decay[t][:, None, None]
        wrong = values[t] - np.einsum("hij,hi->hj", matrix, keys[t])
        matrix = matrix + keys[t][:, :, None] * (beta[t][:, None] * wrong)[:, None, :]
        out[t] = np.einsum("hij,hi->hj", matrix, queries[t]) * dim**-0.5
    out = out / np.sqrt((out * out).mean(-1, keepdims=True) + epsilon) * parts["norm"]
    gate = parts["gate"].reshape(out.shape).astype(np.float64)
    out = out * gate / (1 + np.exp(-gate))
    after = matrix.reshape(value_heads, dim, -1, columns).transpose(0, 2, 1, 3)
    return out.reshape(n, -1), after.reshape(-1)
