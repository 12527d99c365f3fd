import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from seventy import LLM, SeventyError
from seventy.engine.model import Aborted
from seventy.formats import formats
from tests.support.oracle import divergence, float32_logits
from tests.support.tiny import write_tiny

PROMPT = "One box, the household or the office on it."


@pytest.mark.parametrize("format", [f.name for f in formats().values()])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_a_float32_model(format: str, tied: bool, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", "llama", format, tied)
    with LLM(path, threads=2, context=512) as llm:
        ids = llm.tokenize(PROMPT * 3)
        ours = llm.logits(ids)
        assert ours.dtype == np.float32 and ours.shape == (len(ids), 259)
        assert np.array_equal(llm.logits(ids, last_only=True), ours[-1:])
    theirs = float32_logits(path, ids)
    kl, top1 = divergence(theirs, ours)
    spread = float(np.var(theirs, axis=-1).mean())
    # F32 weights leave the half-precision cache; others inputs of 8 bits, a small part of the logits' own variance.
    assert kl < (1e-6 if format == "F32" else 2e-3 * spread)
    assert top1 > (0.999 if format == "F32" else 0.9)


def test_threads_do_not_change_the_result(tiny: Path) -> None:
    ids = list(PROMPT.encode() * 8)
    results = []
    for threads in (1, 2, 8):
        with LLM(tiny, threads=threads, context=512) as llm:
            results.append(llm.logits(ids))
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_one_by_one_equals_all_at_once(llm: LLM) -> None:
    ids = list(PROMPT.encode() * 10)
    together = llm.logits(ids)
    for n in (1, 7, 300):
        assert np.array_equal(llm.logits(ids[:n], last_only=True)[0], together[n - 1])
    llm.generate(ids[:5], 1)
    for n in range(6, 40):
        assert llm.generate(ids[:n], 1).timings.cached_tokens == n - 1
    # The answer after a cached prefix is the answer without one.
    cached = llm.generate(ids, 20)
    assert cached.timings.cached_tokens >= 39
    llm.logits([0])
    assert llm.generate(ids, 20).token_ids == cached.token_ids


def test_prompt_of_several_passes(llm: LLM) -> None:
    ids = list(range(250)) * 3
    assert np.array_equal(llm.logits(ids, last_only=True)[0], llm.logits(ids)[-1])


def test_pieces_make_the_text(llm: LLM) -> None:
    stream = llm.stream(PROMPT, 50, temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=4, ignore_eos=True)
    pieces = list(stream)
    assert stream.completion is not None
    assert "".join(pieces) == stream.completion.text == llm.detokenize(stream.completion.token_ids)
    assert stream.completion.finish_reason == "length"
    assert len(stream.completion.token_ids) == 50


def test_same_seed_same_text(llm: LLM) -> None:
    options = {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "ignore_eos": True}
    first = llm.generate(PROMPT, 30, seed=1, **options)
    assert llm.generate(PROMPT, 30, seed=1, **options).token_ids == first.token_ids
    assert llm.generate(PROMPT, 30, seed=2, **options).token_ids != first.token_ids


def test_greedy_is_the_likeliest_token(llm: LLM) -> None:
    ids = llm.prompt_ids(PROMPT)
    answer = llm.generate(PROMPT, 5, ignore_eos=True).token_ids
    for i, token in enumerate(answer):
        assert llm.logits(ids + answer[:i], last_only=True).argmax() == token


def test_stop_string_ends_the_text_before_it(llm: LLM) -> None:
    whole = llm.generate(PROMPT, 40, temperature=2.0, seed=3, ignore_eos=True)
    stop = whole.text[5:8]
    cut = llm.generate(PROMPT, 40, temperature=2.0, seed=3, ignore_eos=True, stop=["never there", stop])
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]


def test_end_token_ends_the_answer_unless_ignored(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    first = llm.generate(PROMPT, 10).token_ids[0]
    monkeypatch.setattr(llm.tokenizer, "end_ids", frozenset([first]))
    ended = llm.generate(PROMPT, 10)
    assert (ended.text, ended.token_ids, ended.finish_reason) == ("", [first], "stop")
    assert len(llm.generate(PROMPT, 10, ignore_eos=True).token_ids) == 10


def test_chat_uses_the_template(llm: LLM) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert llm.render(messages) == "<|start|>user: hi<|end|><|start|>assistant: "
    ids = llm.prompt_ids(messages)
    assert [ids.count(256), ids.count(257)] == [2, 1]
    assert llm.chat(messages, 5).token_ids == llm.generate(ids, 5).token_ids


def test_repeat_penalty_and_frequency_penalty_change_the_text(llm: LLM) -> None:
    plain = llm.generate(PROMPT, 60, ignore_eos=True).token_ids
    assert len(set(llm.generate(PROMPT, 60, ignore_eos=True, frequency_penalty=50.0).token_ids)) > len(set(plain))
    assert llm.generate(PROMPT, 60, ignore_eos=True, repeat_penalty=10.0).token_ids != plain


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "options", "sentence"),
    [
        ([1] * 1024, 5, {}, "prompt has 1024 tokens, and the context of 1024 has no room"),
        ([1] * 1024, None, {}, "the context of 1024 has no room"),
        ("", 5, {}, "prompt is empty"),
        ([], 5, {}, "prompt is empty"),
        ([5, 259], 5, {}, "token id 259 is not in the vocabulary of 259"),
        ([-1], 5, {}, "token id -1"),
        ("x", 0, {}, "max_tokens must be at least 1, not 0"),
        ("x", 5, {"temperature": -1.0}, "temperature must be from 0 to 100, not -1.0"),
        ("x", 5, {"temperature": float("nan")}, "temperature must be from 0"),
        ("x", 5, {"top_p": 1.5}, "top_p must be from 0 to 1"),
        ("x", 5, {"seed": -2}, "seed must be"),
        ("x", 5, {"warmth": 1}, "unknown sampling option: .*warmth"),
    ],
)
def test_bad_input_is_one_sentence(llm: LLM, prompt: object, max_tokens: int, options: dict, sentence: str) -> None:
    with pytest.raises(SeventyError, match=sentence):
        llm.generate(prompt, max_tokens, **options)
    assert llm.generate("still alive", 2, ignore_eos=True).token_ids


def test_answer_may_fill_the_context_and_says_so(llm: LLM) -> None:
    full = llm.generate([1] * 1000, ignore_eos=True)
    assert (len(full.token_ids), full.finish_reason) == (24, "length")


def test_model_that_does_not_fit_is_refused_before_it_is_loaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seventy.machine.memory.available_bytes", lambda: 1_000_000)
    with pytest.raises(SeventyError, match=r"needs \d+\.\d MB of memory and 0\.0 MB of .* are free"):
        LLM(tiny)


def test_closing_frees_everything(tiny: Path) -> None:
    def used() -> tuple[int, int, int]:
        process = psutil.Process()
        return threading.active_count(), process.num_fds(), len(process.children())

    LLM(tiny, threads=4).close()
    before = used()
    for _ in range(3):
        llm = LLM(tiny, threads=4, context=256)
        llm.generate(PROMPT, 3)
        llm.close()
        llm.close()
    assert used() == before


def test_stream_left_early_leaves_the_model_usable(llm: LLM) -> None:
    whole = llm.generate(PROMPT, 30, ignore_eos=True).token_ids
    stream = llm.stream(PROMPT, 30, ignore_eos=True)
    for _ in range(3):
        next(iter(stream))
    stream.close()
    assert stream.completion is not None and stream.completion.finish_reason == "aborted"
    # How fast it was until then is known.
    timings = stream.completion.timings
    assert timings.generated_tokens >= 3 and timings.decode_tokens_per_second > 0
    assert timings.prompt_tokens_per_second > 0 and timings.decode_gbs > 0
    assert llm.generate(PROMPT, 30, ignore_eos=True).token_ids == whole


def test_an_aborted_step_is_run_again_and_changes_nothing(llm: LLM) -> None:
    whole = llm.generate(list(range(200)) * 4, 5, ignore_eos=True).token_ids
    done, aborted, step = threading.Event(), [], llm.model.step

    def counted(*of: Any) -> object:
        try:
            return step(*of)
        except Aborted:
            aborted.append(1)
            raise

    def keep_aborting() -> None:
        # Less and less often: on a busy machine a step might never come to its end.
        pause = 0.002
        while not done.wait(pause):
            llm.model.abort()
            pause *= 1.05

    llm.model.step = counted  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=keep_aborting)
    thread.start()
    try:
        for _ in range(10):
            llm.model.cache.forget()
            assert llm.generate(list(range(200)) * 4, 5, ignore_eos=True).token_ids == whole
    finally:
        done.set()
        thread.join()
        del llm.model.step
    assert aborted


def test_several_streams_at_once_are_each_the_text_alone(llm: LLM) -> None:
    prompts = [PROMPT, "Once upon a time", "abc"]
    alone = [llm.generate(prompt, 40, ignore_eos=True).text for prompt in prompts]
    streams = [llm.stream(prompt, 40, ignore_eos=True) for prompt in prompts]
    texts = ["", "", ""]
    running = [iter(stream) for stream in streams]
    for _ in range(41):
        for i, pieces in enumerate(running):
            texts[i] += next(pieces, "")
    assert texts == alone
    # One that is left open, and one that never began, hold up nobody.
    next(iter(llm.stream(PROMPT, 900, ignore_eos=True)))
    llm.stream(PROMPT)
    assert llm.generate(prompts[1], 40, ignore_eos=True).text == alone[1]


def test_ctrl_c_stops_a_long_prompt(tmp_path: Path, smollm2: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\nfrom seventy import LLM\n"
        f"llm = LLM({str(smollm2)!r}, threads=2, context=8192, isa='generic')\n"
        "print('ready', flush=True)\n"
        "try:\n    llm.generate([5] * 8000, 1)\n"
        "except KeyboardInterrupt:\n    print('stopped', llm.scheduler.statistics.rows)\n"
        "print(len(llm.generate([5], 3, ignore_eos=True).token_ids))\nllm.close()\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        time.sleep(1)
        os.kill(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    stopped, after = rest.split("\n")[:2]
    assert stopped.startswith("stopped") and int(stopped.split()[1]) < 8000
    assert after == "3"
