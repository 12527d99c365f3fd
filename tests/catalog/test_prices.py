"""Prices stay in their region and their time, and a user's own come first."""

from pathlib import Path

import pytest

from seventy.catalog.own import own_parts, own_prices
from seventy.catalog.platforms import all_platforms
from seventy.catalog.prices import PriceBook, all_prices, months
from seventy.errors import SeventyError


def test_every_price_has_region_currency_date_and_source() -> None:
    platforms = {platform.name for platform in all_platforms()}
    for row in all_prices():
        assert row.region and row.currency and row.source and months(row.date) > 2000 * 12
        if row.category == "platform":
            assert row.item in platforms


def test_regions_are_never_mixed() -> None:
    book = PriceBook("CN", "2025-02")
    assert book.currency == "CNY"
    assert {row.currency for _, _, row in book.modules("DDR4", "RDIMM")} == {"CNY"}
    assert book.part("cpu", "AMD EPYC 7742").price is None, "only a US price is known: it stays unknown here"


def test_the_nearest_price_in_time_is_taken() -> None:
    part = PriceBook("CN", "2025-02").part("cpu", "Intel Xeon Platinum 8175M")
    assert part.price is not None and (part.price.each, part.price.date) == (130, "2025-02")
    later = PriceBook("CN", "2025-05").part("cpu", "Intel Xeon Platinum 8175M")
    assert later.price is not None and later.price.each == 120


def test_old_memory_prices_do_not_stand_beside_dearer_new_ones() -> None:
    offers = PriceBook("US", "2026-09").modules("DDR5", "UDIMM")
    assert offers and all(row.date.startswith("2026") for _, _, row in offers)


def test_kits_are_divided_and_ranges_have_a_middle() -> None:
    kit = next(row for row in all_prices() if row.unit == "kit of 8" and row.currency == "USD")
    assert kit.each == pytest.approx((kit.price or 0) / 8)
    ranged = next(row for row in all_prices() if row.ranged)
    assert ranged.low is not None and ranged.high is not None and ranged.low < ranged.each < ranged.high


def test_unknown_region_and_month_are_one_sentence() -> None:
    with pytest.raises(SeventyError, match="no prices for region 'MARS'"):
        PriceBook("MARS")
    with pytest.raises(SeventyError, match="not a month"):
        PriceBook("CN", "February")
    with pytest.raises(SeventyError, match="oldest is of"):
        PriceBook("CN", "1999-01")


def test_own_prices_come_first(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[[price]]\ncategory = "cpu"\nitem = "Intel Xeon E5-2680 v4"\nprice = 45\n')
    book = PriceBook("CN", "2025-02", own=own_prices(mine, "CN", "CNY"))
    part = book.part("cpu", "Intel Xeon E5-2680 v4")
    assert part.price is not None and part.price.each == 45 and part.price.source == "own file mine.toml"


def test_own_files_refuse_unknown_keys_with_their_line(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    one = '[[price]]\ncategory = "cpu"\nitem = "x"\nprice = 45\n\n'
    mine.write_text(one + '[[price]]\ncategory = "ram"\ncolour = "red"\n')
    with pytest.raises(SeventyError, match=r"mine\.toml line 8: unknown key 'colour'"):
        own_prices(mine, "CN", "CNY")
    mine.write_text('[[cost]]\nprice = 1\n')
    with pytest.raises(SeventyError, match=r"line 1: unknown table 'cost'"):
        own_prices(mine, "CN", "CNY")
    mine.write_text("[[price\n")
    with pytest.raises(SeventyError, match="is no TOML"):
        own_prices(mine, "CN", "CNY")
    with pytest.raises(SeventyError, match="cannot be read"):
        own_prices(tmp_path / "none.toml", "CN", "CNY")


def test_own_parts(tmp_path: Path) -> None:
    mine = tmp_path / "parts.toml"
    mine.write_text(
        '[[cpu]]\nname = "Xeon Gold 9999"\nmicroarch = "Skylake-SP"\ncores = 40\nall_core_ghz = 2.5\n'
        'socket = "FCLGA3647"\nisa = "avx512"\nmem_type = "DDR4"\nmem_channels = 6\nmem_speed_mts = 2666\n'
        '[[platform]]\nname = "My box"\nkind = "tower_workstation"\nsockets = 1\nsocket = "FCLGA3647"\n'
        'microarchs = "Skylake-SP"\nmem_type = "DDR4"\ndimm_form = "RDIMM"\ndimm_slots = 6\nchannels_per_socket = 6\n'
        "max_mem_gb = 384\n"
    )
    cpus, platforms = own_parts(mine)
    assert cpus[0].cores == 40 and cpus[0].big_cores == 40 and platforms[0].name == "My box"
    mine.write_text('[[cpu]]\nname = "Half"\ncores = "many"\n')
    with pytest.raises(SeventyError, match=r"parts\.toml line 1"):
        own_parts(mine)
