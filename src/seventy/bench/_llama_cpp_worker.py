"""Runs in a Python that has llama-cpp-python: answers one JSON line with another. Imports nothing of seventy.

Line 1: {"path", "prefill_threads", "decode_threads", "context", "sequences"} -> {"version", "system"}, `system` being
what llama.cpp says of its build; then {"what": "prefill", "tokens"},
{"what": "decode", "tokens", "depth"}, {"what": "batch", "rows", "depth", "passes"} or
{"what": "speculate", "tokens", "depth", "guesses", "right"} -> {"seconds"}. The last writes tokens by passes with so
many guesses each, of which one is right as often as `right` says; what was read of wrong ones is taken back.
"""

import ctypes
import json
import random
import sys
import time

import llama_cpp as native


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    native.llama_log_set(_QUIET, ctypes.c_void_p(0))
    native.llama_backend_init()
    model = native.llama_model_load_from_file(settings["path"].encode(), native.llama_model_default_params())
    parameters = native.llama_context_default_params()
    parameters.n_ctx = settings["context"]
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads, parameters.n_threads_batch = settings["decode_threads"], settings["prefill_threads"]
    parameters.n_seq_max = settings["sequences"]
    # Else every sequence could have only its part of the context.
    parameters.kv_unified = True
    context = native.llama_init_from_model(model, parameters) if model else None
    if not context:
        print(json.dumps({"error": "llama.cpp could not load the model"}), flush=True)
        return
    vocabulary = native.llama_vocab_n_tokens(native.llama_model_get_vocab(model))
    system = native.llama_print_system_info().decode()
    print(json.dumps({"version": native.__version__, "system": system}), flush=True)
    batch = native.llama_batch_init(512, 0, 1)

    def decode(rows: list[tuple[int, int, int]], logits: int) -> None:
        """Reads (token, position, sequence) rows in one pass; logits of the last `logits` of them."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, sequence
            batch.logits[i] = i >= len(rows) - logits
        if native.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")

    def random_rows(first: int, n: int, sequence: int = 0) -> list[tuple[int, int, int]]:
        return [(random.randrange(vocabulary), position, sequence) for position in range(first, first + n)]

    def read(rows: list[tuple[int, int, int]]) -> None:
        for first in range(0, len(rows), 512):
            decode(rows[first : first + 512], int(first + 512 >= len(rows)))

    def speculate(at: int, tokens: int, guesses: int, right: float) -> None:
        memory, end = native.llama_get_memory(context), at + tokens
        while at < end:
            decode(random_rows(at, 1 + guesses), 1 + guesses)
            wrong = (i for i in range(guesses) if random.random() >= right)
            at += 1 + next(wrong, guesses)
            native.llama_memory_seq_rm(memory, 0, at, -1)

    for line in sys.stdin:
        task = json.loads(line)
        native.llama_memory_clear(native.llama_get_memory(context), True)
        if task["what"] == "prefill":
            passes = [random_rows(0, task["tokens"])]
        else:
            sequences = range(task.get("rows", 1))
            count = task.get("passes") or task["tokens"]
            for sequence in sequences:
                read(random_rows(0, task["depth"], sequence))
            at = range(task["depth"], task["depth"] + count)
            passes = [[row for s in sequences for row in random_rows(position, 1, s)] for position in at]
        native.llama_synchronize(context)
        start = time.perf_counter()
        if task["what"] == "speculate":
            speculate(task["depth"], task["tokens"], task["guesses"], task["right"])
            passes = []
        for rows in passes:
            if task["what"] == "prefill":
                read(rows)
            else:
                decode(rows, len(rows))
        native.llama_synchronize(context)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


@native.llama_log_callback
def _QUIET(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    return


main()
