"""What `plan` would have bought: the article's wishes at the article's prices."""

import datetime
import time
from functools import cache
from itertools import pairwise

import pytest

from seventy.catalog.book import PriceBook
from seventy.catalog.cpus import all_cpus
from seventy.catalog.platforms import NOISE, all_platforms
from seventy.plan import show
from seventy.plan.advice import notes
from seventy.plan.answers import plan_json
from seventy.plan.builds import cpus_for, layouts
from seventy.plan.cost import Usage
from seventy.plan.rank import AIMS, Constraints
from seventy.plan.shop import Plan, shop
from seventy.plan.wanted import catalogue_load

BOOK = PriceBook("CN", "2025-02", infer=False)
USAGE = Usage(6.0, 0.55, 3.0)


@cache
def planned(wishes: Constraints, aim: str = "speed", model: str = "llama-3.3-70b", book: PriceBook = BOOK) -> Plan:
    return shop(catalogue_load(model, "Q4_K_M"), 4096, "llama.cpp", book, wishes, USAGE, aim)


def test_quiet_at_home_for_2100_is_a_filled_workstation() -> None:
    best = planned(Constraints(budget=2100, quiet=True, place="home")).ranked[0].build
    assert best.platform.kind == "tower_workstation"
    assert best.channels == (4, 4) and best.price <= 2100
    assert best.prediction.decode.mid >= 1.0


def test_a_rack_for_2100_is_a_server_with_its_channels_filled() -> None:
    best = planned(Constraints(budget=2100, place="rack")).ranked[0].build
    assert best.platform.rack and best.channels[0] == best.channels[1]


def test_every_limit_is_kept() -> None:
    wishes = Constraints(budget=4000, max_watts=150, max_litres=10, min_tok_s=1.0, place="home")
    found = planned(wishes)
    assert found.kept
    for offer in found.kept:
        assert offer.build.price <= 4000 and offer.cost.load_w <= 150
        assert (offer.build.platform.volume_l or 99) <= 10 and offer.build.prediction.decode.mid >= 1.0


@pytest.mark.parametrize("aim", AIMS)
def test_aims_order_the_offers(aim: str) -> None:
    ranked = planned(Constraints(), aim).ranked
    speeds = [offer.build.prediction.decode.mid for offer in ranked]
    if aim in ("speed", "sense", "budget"):
        # What makes sense stands first; of the same speed the cheaper one over the years.
        assert all(b <= a * 1.031 for a, b in pairwise(speeds[aim != "speed" :]))
        return
    values = {
        "price": [o.build.price for o in ranked],
        "value": [-o.build.prediction.decode.mid / o.build.price for o in ranked],
        "running-cost": [o.cost.million_tokens_electricity for o in ranked],
        "quiet": [NOISE.index(o.build.platform.noise_class or "loud") for o in ranked],
    }[aim]
    assert values == sorted(values)


def test_front_rises() -> None:
    front = planned(Constraints()).front
    assert len(front) > 5
    for cheaper, dearer in pairwise(front):
        assert cheaper.build.price < dearer.build.price
        assert cheaper.build.prediction.decode.mid < dearer.build.prediction.decode.mid


def test_impossible_wishes_get_the_nearest_and_what_gives() -> None:
    found = planned(Constraints(budget=300, silent=True))
    assert not found.kept and found.nearest
    first = found.nearest[0]
    assert first.build.platform.name == "HP Z440" and {key for key, _ in first.breaks} == {"x_budget", "x_noise"}
    text = show.text(found, "en", 8)
    assert "Nothing meets all of this" in text and "instead of 300 CNY" in text


def test_one_stick_is_warned_about() -> None:
    found = planned(Constraints(budget=1200, quiet=True))
    one = next(o for o in found.kept if o.build.dimms.count == 1)
    warned = dict(notes(one, found.load, found.wishes, BOOK, "llama.cpp"))
    assert warned["n_channels"]["empty"] == 3
    assert warned["n_channels"]["then"] == pytest.approx(4 * warned["n_channels"]["now"], rel=0.05)  # type: ignore[operator]
    assert "n_model" in warned


def test_a_loud_box_and_an_old_price_are_warned_about() -> None:
    found = planned(Constraints(budget=2600))
    offer = next(o for o in found.kept if o.build.platform.rack and o.build.oldest_months)
    warned = dict(notes(offer, found.load, found.wishes, BOOK, "llama.cpp"))
    assert "n_loud" in warned and any(part.carried for part in offer.build.parts)
    now = PriceBook("CN", "2026-11")
    late = planned(Constraints(budget=4000), book=now)
    warned = dict(notes(late.ranked[0], late.load, late.wishes, now, "llama.cpp"))
    assert warned["n_stale"]["months"] == 21 and "n_range" in warned


def test_a_bill_with_old_prices_has_no_new_month_for_a_title() -> None:
    now = PriceBook("CN", "2026-11")
    found = planned(Constraints(budget=4000), book=now)
    best = found.ranked[0].build
    first = show.text(found, "en", 3)
    assert best.oldest_months and "as of 2026-11" not in first and "of 2025-02 to" in first.splitlines()[0]
    assert "! Old prices of memory are multiplied" in first
    assert f"Best: {best.name}, {best.price_low:,.0f} - {best.price_high:,.0f} CNY" in first


def test_electricity_of_the_articles_machines() -> None:
    found = planned(Constraints())
    z440 = next(o for o in found.kept if o.build.platform.name == "HP Z440")
    assert 1.3 <= z440.cost.kwh_per_day <= 1.8
    servers = [o for o in found.kept if o.build.platform.rack and o.build.sockets == 2]
    mean = sum(o.cost.kwh_per_day for o in servers) / len(servers)
    assert 4.5 <= mean <= 6.5


def test_ram_factor_multiplies_memory_only() -> None:
    dear = PriceBook("CN", "2025-02", ram_factor=4, infer=False)
    now = next(o for o in planned(Constraints()).kept if o.build.name == "HP Z440 · Xeon E5-2680 v4 · 4x64@2400").build
    then = next(o for o in planned(Constraints(), book=dear).kept if o.build.name == now.name).build
    assert then.price - now.price == pytest.approx(3 * 4 * 275)


def test_whole_enumeration_is_quick_and_says_how_many() -> None:
    began = time.perf_counter()
    found = planned(Constraints(max_watts=1e6))
    assert found.census.looked_at > 3_000
    assert time.perf_counter() - began < 20, "one second on an idle desk; generous for a loaded one"


def test_parts_fit_together() -> None:
    for platform in all_platforms():
        fitting = cpus_for(platform, all_cpus())
        if not platform.cpu:
            assert fitting, platform.name
        for cpu in fitting:
            assert platform.cpu or cpu.socket == platform.socket
        for sockets in range(1, platform.sockets + 1):
            for count, gb in layouts(platform, sockets):
                assert count <= max(1, platform.dimm_slots) and count * gb <= platform.max_mem_gb, platform.name


def test_stale_snapshot_stands_in_the_headline() -> None:
    load = catalogue_load("70b", "Q4_K_M")
    assert "21 months old" in show.headline(load, BOOK, "en", datetime.date(2026, 11, 23))
    assert "months old" not in show.headline(load, BOOK, "en", datetime.date(2025, 4, 1))


def test_json_names_sources_and_dates() -> None:
    answer = plan_json(planned(Constraints(budget=2100, quiet=True)), "en", 3)
    builds = answer["builds"]
    assert isinstance(builds, list) and builds
    for part in builds[0]["parts"]:
        assert part["each"] > 0 and part["date"] and part["source"] and part["region"] == "CN"
