import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.text.stops import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    filter = StopStrings(stops)
    shown = ""
    for piece in pieces:
        text, hit = filter.push(piece)
        shown += text
        if hit:
            return shown, True
    return shown + filter.flush(), False


def test_holds_back_a_beginning() -> None:
    filter = StopStrings(["\nUser:", "###"])
    assert filter.push("Hello\nUs") == ("Hello", False)
    assert filter.push("ually #") == ("\nUsually ", False)
    assert filter.push("#") == ("", False)
    assert filter.push("2") == ("##2", False)
    assert filter.push("\nUser: no") == ("", True)


def test_no_stops_and_empty_stops() -> None:
    assert run([], ["a", "b"]) == ("ab", False)
    assert run([""], ["a", "b"]) == ("ab", False)


def test_the_first_to_end_counts() -> None:
    assert run(["abcd", "bc"], ["xabcd"]) == ("xa", True)
    assert run(["abc", "bc"], ["xabc"]) == ("x", True)


def first_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """Slow: looks at every end, shortest text first, for the stop that begins first."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@settings(deadline=None)
@given(st.lists(st.text("ab", max_size=4), max_size=4), st.lists(st.text("abc", max_size=5), max_size=8))
def test_equals_the_slow_search(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == first_stop("".join(pieces), stops)


def test_any_cut_of_the_text_gives_the_same() -> None:
    text, stops = "one two<|end|> three", ["<|end|>"]
    for a, b in itertools.combinations(range(len(text)), 2):
        assert run(stops, [text[:a], text[a:b], text[b:]]) == ("one two", True)
