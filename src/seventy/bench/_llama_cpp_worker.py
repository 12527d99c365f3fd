"""Runs in a Python that has llama-cpp-python: answers one JSON line with another. Imports nothing of seventy.

Line 1: {"path", "threads", "context"}; then {"what": "prefill" | "decode", "tokens", "depth"} -> {"seconds"}.
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
    parameters.n_threads = parameters.n_threads_batch = settings["threads"]
    context = native.llama_init_from_model(model, parameters) if model else None
    if not context:
        print(json.dumps({"error": "llama.cpp could not load the model"}), flush=True)
        return
    vocabulary = native.llama_vocab_n_tokens(native.llama_model_get_vocab(model))
    print(json.dumps({"version": native.__version__}), flush=True)

    def read(tokens: list[int]) -> None:
        for first in range(0, len(tokens), 512):
            part = tokens[first : first + 512]
            array = (native.llama_token * len(part))(*part)
            if native.llama_decode(context, native.llama_batch_get_one(array, len(part))):
                raise RuntimeError("llama_decode failed")

    def random_tokens(n: int) -> list[int]:
        return [random.randrange(vocabulary) for _ in range(n)]

    for line in sys.stdin:
        task = json.loads(line)
        native.llama_memory_clear(native.llama_get_memory(context), True)
        prompt = random_tokens(task["tokens"])
        if task["depth"]:
            read(random_tokens(task["depth"]))
        start = time.perf_counter()
        if task["what"] == "prefill":
            read(prompt)
        else:
            for token in prompt:
                read([token])
        native.llama_synchronize(context)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


@native.llama_log_callback
def _QUIET(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    return


main()
