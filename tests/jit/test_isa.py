import pytest

from seventy.errors import SeventyError
from seventy.jit import isa


def test_highest_level_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEVENTY_ISA", raising=False)
    assert isa.select() == isa.supported()[-1]


def test_lower_level_by_name_and_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isa.select("generic").name == "generic"
    monkeypatch.setenv("SEVENTY_ISA", "generic")
    assert isa.select().name == "generic"


def test_unknown_level_is_refused_with_those_there_are() -> None:
    with pytest.raises(SeventyError, match="no ISA level 'sse9'; this CPU can run: generic"):
        isa.select("sse9")


def test_level_above_the_cpu_is_refused_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "host_features", lambda: frozenset(("sse2", *isa.LEVELS["avx2"].features)))
    assert isa.select().name == "avx2"
    with pytest.raises(SeventyError, match=r"lacks avx512f, .*it can run: generic, avx, avx2$"):
        isa.select("avx512vnni")


def test_every_level_is_chosen_where_it_is_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEVENTY_ISA", raising=False)
    for level in isa.LEVELS.values():
        if level.narrowed:
            continue
        monkeypatch.setattr(isa, "host_features", lambda level=level: frozenset(("sse2", *level.features)))
        assert isa.select() == level


def test_features_that_only_make_it_faster_are_used_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    level = isa.LEVELS["avx512vnni"]
    monkeypatch.setattr(isa, "host_features", lambda: frozenset(("sse2", *level.features, "avx512vbmi")))
    for found in (isa.select("avx512vnni"), isa.select("avx512vnni-256"), isa.narrow(level), isa.supported()[-1]):
        assert found and found.vbmi and found.features == (*level.features, "avx512vbmi")
    assert not level.vbmi and not isa.select("avx512").vbmi


def test_narrowed_level_is_another_width_of_the_same_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "host_features", lambda: frozenset(("sse2", *isa.LEVELS["avx512"].features)))
    narrow = isa.narrow(isa.LEVELS["avx512"])
    assert narrow and (narrow.lanes, narrow.features) == (8, isa.LEVELS["avx512"].features)
    assert isa.select("avx512-256") == narrow and isa.wide_name(narrow.name) == "avx512"
    assert narrow not in isa.supported() and isa.select().name == "avx512"
    assert isa.narrow(isa.LEVELS["avx2"]) is None
    with pytest.raises(SeventyError, match=r"it can run: .*avx512-256, avx512$"):
        isa.select("avx512vnni-256")


def test_cpu_without_any_level_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "host_features", lambda: frozenset(["neon"]))
    with pytest.raises(SeventyError, match="x86-64"):
        isa.select()
