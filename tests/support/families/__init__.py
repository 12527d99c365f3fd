"""Tiny random GGUF files of each architecture, and a plain numpy forward pass to judge the engine by.

Each module has `write(path, seed, format, **corners) -> path` and `forward(path, ids) -> (logits, gaps)`: float32
[n, vocabulary], and per row how clear the routers' choices were (leave out rows below 1e-3: there a rounding changes
which experts are chosen); those whose files have a block of multi-token prediction also `guesses(path, ids, fed)`, the
same of that block. CASES are corners of `write` by name; TWINS are pairs of corners that make equal models, the
second in a form that older builds of llama.cpp read. tests/models/test_oracles.py compares all of it with llama.cpp.
"""
