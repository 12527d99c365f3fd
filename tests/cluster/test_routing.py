"""Which machine gets a request."""

import json
from dataclasses import dataclass, field

from seventy.cluster import routing
from seventy.cluster.routing import Router, prompt_of

LONG = "Once upon a time there was a box under a desk. " * 30


@dataclass(eq=False)
class Box:
    running: list[int] = field(default_factory=list)


def body(*texts: str, **fields: object) -> str:
    messages = [{"role": "user", "content": text} for text in texts]
    return prompt_of(json.dumps({"temperature": 1, "messages": messages, **fields}).encode())


def test_a_prompt_that_goes_on_begins_as_it_did() -> None:
    first, second = body(LONG), body(LONG, "and then?")
    assert second.startswith(first[:-1])
    assert body(LONG, model="b") != first and body(LONG, tools=[]) != first
    for nothing in (b"", b"[1]", b"{", b'"a"', b"{}"):
        assert prompt_of(nothing) == ""


def test_a_machine_is_kept_for_its_cache_until_it_is_too_busy() -> None:
    router, one, two = Router(slack=2), Box(), Box()
    router.served(two, body(LONG), "a")
    for running, chosen in ((0, two), (2, two), (3, one)):
        two.running = [0] * running
        assert router.choose([one, two], body(LONG, "and then?"), "b") is chosen
    # Without a prompt it is asked about what it made, however busy it is.
    assert router.choose([one, two], "", "a") is two
    router.forget(two)
    two.running = []
    router.served(one, body("other"), "c")
    assert router.choose([one, two], "", "a") is two, "it was used less recently"
    router.served(two, body("other"), "c")
    assert router.choose([two, one], body(LONG), "a") is one


def test_the_longest_beginning_counts_and_the_oldest_are_forgotten(monkeypatch: object) -> None:
    router, one, two = Router(), Box(), Box()
    router.served(one, body(LONG), "a")
    router.served(two, body(LONG, LONG), "a")
    router.served(one, body(LONG, "another end" * 50), "a")
    assert router.choose([one, two], body(LONG, LONG, "?"), "a") is two
    assert router.choose([one, two], body(LONG, "?"), "a") is one
    for n in range(routing._MAX_NOTES // 40 + 1):
        router.served(one, f"{n} {LONG}" * 8, "b")
    assert len(router._chunks) == routing._MAX_NOTES
