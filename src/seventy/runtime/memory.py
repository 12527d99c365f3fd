"""What a model takes of a machine's memory, and what a machine has for one: the account that every command asks.

It is a function of plain numbers and knows no file, graph or cache: engine/footprint.py collects the numbers from a
file, plan/wanted.py from the catalogue. All sizes are in bytes.
"""

from dataclasses import dataclass

from seventy.kernels.pages import PAGE

# A step reads at most so many rows: enough to be bound by arithmetic and not by memory, few enough that the
# activations of a 70B stay under 200 MB. Of a mixture twice as many where memory has room for them: each expert sees a
# part of them only, 16 of 512 where 8 of 256 are used.
MAX_ROWS, MAX_MIXTURE_ROWS = 256, 512
MAX_OUTPUTS = 64

# What the process takes beside weights, cache and rows: resident memory of `seventy serve` after a chat and an answer
# as JSON, with the process that renders templates, measured with vocabularies of 1,000 to 262,144 tokens: 193 MB
# (Python, LLVM, numpy, the server) and 1.05 to 1.15 KB of tokenizer and grammar for each token.
PROCESS_BYTES = 200_000_000
TOKEN_BYTES = 1_200

# What a server keeps for its users (responses of /v1/responses that others go on from): at most so much of all users,
# and a part of it of each. Where memory is short, a share of the room that there is.
KEPT_BYTES, KEPT_USERS, KEPT_SHARE = 64_000_000, 4, 100

# What a model must leave to the system: a desktop's session takes 1 GB or a little less (a server's 0.3), and one
# percent is for what grows with memory: page tables, the kernel's own caches, the free pages below which it swaps.
RESERVE_BYTES = 1_000_000_000
RESERVE_SHARE = 100

# The context at which needs are named where nobody says another.
USUAL_CONTEXT = 4096
# Without --context: no more than this, and a refusal where not even the least fits.
MOST_CONTEXT = 32768
LEAST_CONTEXT = 1024
# Of recurrent layers: a text reads one state and writes another, and one is for the next to go on from.
LEAST_STATES = 3


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that running a model takes, by what they are for."""

    weights: int
    cache: int
    states: int
    rows: int
    process: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.states + self.rows + self.process


@dataclass(frozen=True, slots=True)
class Footprint:
    """A model's sizes as far as memory goes.

    `weights` are the packed bytes of all tensors, `position_bytes` what the caches of layers that see every position
    take for one, `window_bytes` what those of layers that see a `window` of positions take for one. `state_bytes` is
    what recurrent layers remember of a text, of whatever length, and `state_log_bytes` the part of it that only drafted
    tokens use. `columns` are the floats that one row of a pass takes (see `row_columns`), `max_rows` the most rows of
    one that the model gains by. `context` is the longest text that it was made for. `shared_bytes` and
    `shared_window_bytes` are what layers that attend to the caches of others read of one position, beside these.
    `draft_bytes` is what is kept of a position beside all that for a block of multi-token prediction.
    """

    weights: int
    position_bytes: int
    columns: int
    vocabulary: int
    context: int
    state_bytes: int = 0
    state_log_bytes: int = 0
    window: int = 0
    window_bytes: int = 0
    shared_bytes: int = 0
    shared_window_bytes: int = 0
    max_rows: int = MAX_ROWS
    draft_bytes: int = 0

    def seen_bytes(self, position: int) -> int:
        """Return the bytes of the cache that a token at this position reads; of recurrent states, writes count too."""
        every, windows = self.position_bytes + self.shared_bytes, self.window_bytes + self.shared_window_bytes
        states = 2 * (self.state_bytes - self.state_log_bytes)
        return every * position + windows * min(position, self.window) + states

    def states(self, sequences: int) -> int:
        """Return how many recurrent states `sequences` texts need when memory has room for them.

        A step of a text reads one and writes another. As many, and two more, are kept for later texts to continue from
        (cache/prefix.py).
        """
        return 4 * sequences + 2 if self.state_bytes else 0

    def slots(self, positions: int, sequences: int) -> int:
        """Return the pages for layers with windows, in a cache of `positions` that `sequences` texts share."""
        return min(whole_pages(positions) // PAGE, self._most_slots(sequences))

    def _most_slots(self, sequences: int) -> int:
        # A text needs two windows, where it is and before the end of its prompt (cache/prefix.py), each with some pages
        # more at its ends; and there are as many texts and two that the next ones may begin as.
        text = 2 * (whole_pages(self.window) // PAGE + 3)
        return (2 * sequences + 2) * text + sequences + self.max_rows // PAGE

    def need(
        self,
        positions: int,
        sequences: int = 1,
        rows: int = MAX_ROWS,
        outputs: int = MAX_OUTPUTS,
        states: int | None = None,
    ) -> Need:
        """Return the memory needed with a cache of `positions` positions (whole pages) that `sequences` texts share.

        `rows` and `outputs` are the largest number of rows in a step and of those that need logits. `states` defaults
        to what `sequences` texts need.
        """
        return Need(
            weights=self.weights,
            cache=(self.position_bytes + self.draft_bytes) * whole_pages(positions)
            + self.window_bytes * PAGE * self.slots(positions, sequences),
            states=self.state_bytes * (self.states(sequences) if states is None else states),
            rows=4 * (rows * self.columns + outputs * self.vocabulary),
            process=PROCESS_BYTES + TOKEN_BYTES * self.vocabulary,
        )


def row_columns(
    hidden: int, queries: int, keys: int, feed_forward: int, experts: int = 0, used: int = 0, expert_width: int = 0
) -> int:
    """Return the floats that one row of a step takes in buffers, from the widths of the residual stream, queries, keys
    and gate.

    They are the buffers (residual, queries, keys, values, attended, gate, up) and the inputs of matrices made of them
    (norm, attended, product of gate and up), which take at most as much as floats. A mixture adds the router's score of
    each of `experts` and what each of the `used` ones reads and writes.
    """
    dense = 2 * hidden + 3 * queries + 2 * keys + 3 * feed_forward
    return dense + experts + used * (3 * expert_width + hidden)


def whole_pages(positions: int) -> int:
    """Round positions up to whole pages."""
    return -(-positions // PAGE) * PAGE


def reserve(total_bytes: int) -> int:
    """Return the bytes a model must leave to the system: at most a quarter of a machine's memory."""
    return min(total_bytes // 4, RESERVE_BYTES + total_bytes // RESERVE_SHARE)


def room(total_bytes: int, available_bytes: int | None = None) -> int:
    """Return the bytes that a machine has for models.

    Without `available_bytes`, the machine is assumed to run nothing else. Other programs' memory is taken from the
    reserve first; a quarter of the reserve always stays free.
    """
    kept = reserve(total_bytes)
    if available_bytes is None:
        return total_bytes - kept
    return max(0, min(total_bytes - kept, available_bytes - kept // 4))


def kept_bytes(room_bytes: int) -> tuple[int, int]:
    """Return how many bytes of stored responses a server may keep for all users, and for one user."""
    every = min(KEPT_BYTES, max(0, room_bytes) // KEPT_SHARE)
    return every, every // KEPT_USERS


def visible(module_bytes: int) -> int:
    """Return the memory that a system shows of its modules: firmware and the kernel's page list (64 bytes a page) take
    2 %.

    A virtual machine of 24 GB modules (25.77e9 bytes) shows 25.28e9.
    """
    return module_bytes * 49 // 50


def fitting_states(footprint: Footprint, room_bytes: int, sequences: int) -> int:
    """Return how many recurrent states fit: all that `sequences` texts need, within half of what the weights leave
    free.

    With fewer, less is remembered of finished texts, and finally fewer texts run at once. It is at least LEAST_STATES.
    """
    if not footprint.state_bytes:
        return 0
    rest = max(0, room_bytes - footprint.need(0, sequences, states=0).total)
    return max(LEAST_STATES, min(footprint.states(sequences), rest // 2 // footprint.state_bytes))


def fitting_positions(footprint: Footprint, room_bytes: int, sequences: int = 1) -> int:
    """Return the positions, in whole pages, of the largest cache that fits beside the weights."""
    states = fitting_states(footprint, room_bytes, sequences)
    rest = room_bytes - footprint.need(0, sequences, states=states).total
    # Layers with windows have room for every page, or for as many as they ever have.
    windows = footprint.window_bytes * PAGE * footprint._most_slots(sequences)
    most = footprint.position_bytes + footprint.draft_bytes
    every = most + footprint.window_bytes
    return max(max(0, rest) // max(1, every), max(0, rest - windows) // max(1, most)) // PAGE * PAGE


def step_rows(footprint: Footprint, room_bytes: int, positions: int, sequences: int, states: int) -> int:
    """Return the most rows of a step: as many as still gain speed if memory has room for them, else MAX_ROWS."""
    need = footprint.need(positions, sequences, rows=footprint.max_rows, states=states)
    return footprint.max_rows if need.total <= room_bytes else MAX_ROWS


def choose_context(footprint: Footprint, room_bytes: int, wanted: int | None = None, sequences: int = 1) -> int:
    """Return the longest text to make room for: `wanted` if given, else what memory allows.

    It is in whole pages, at most the model's own context (and MOST_CONTEXT unless wanted) and at least LEAST_CONTEXT;
    without memory for that, reserving it raises an error with the numbers.
    """
    if wanted is not None:
        return min(wanted, footprint.context)
    most = min(MOST_CONTEXT, footprint.context)
    return max(min(LEAST_CONTEXT, most), min(most, fitting_positions(footprint, room_bytes, sequences)))


def cache_positions(footprint: Footprint, room_bytes: int, context: int, sequences: int) -> int:
    """Return the positions of the cache that `sequences` texts of up to `context` tokens share.

    It is what memory allows: at least one such text, at most all of them.
    """
    one = whole_pages(context)
    return max(one, min(sequences * one, fitting_positions(footprint, room_bytes, sequences)))
