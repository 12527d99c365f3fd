"""Prices stay in their region and their time, and a user's own come first."""

from pathlib import Path

import pytest

from seventy.catalog.book import PriceBook
from seventy.catalog.inflation import UNCHANGED, Factor, factor
from seventy.catalog.platforms import all_platforms
from seventy.catalog.prices import Part, PriceRow, all_prices, months
from seventy.catalog.user_files import own_parts, own_prices
from seventy.errors import SeventyError


def test_every_price_has_region_currency_date_and_source() -> None:
    platforms = {platform.name for platform in all_platforms()}
    for row in all_prices():
        assert row.region and row.currency and row.source and months(row.date) > 2000 * 12
        if row.category == "platform":
            assert row.item in platforms


def test_regions_are_never_mixed() -> None:
    book = PriceBook("CN", "2025-02", infer=False)
    assert book.currency == "CNY"
    assert {row.currency for _, _, row in book.modules("DDR4", "RDIMM")} == {"CNY"}
    assert book.part("cpu", "AMD EPYC 7742").price is None, "only a US price is known: it stays unknown here"


def test_the_nearest_price_in_time_is_taken() -> None:
    part = PriceBook("CN", "2025-02").part("cpu", "Intel Xeon Platinum 8175M")
    assert part.price is not None and (part.price.each, part.price.date) == (130, "2025-02")
    later = PriceBook("CN", "2025-05").part("cpu", "Intel Xeon Platinum 8175M")
    assert later.price is not None and later.price.each == 120


def test_old_memory_prices_do_not_stand_beside_new_ones_of_their_size() -> None:
    offers = PriceBook("US", "2026-09", infer=False).modules("DDR5", "UDIMM")
    fresh = {gb for gb, _, row in offers if row.date.startswith("2026")}
    assert {16, 32} <= fresh and all(row.date.startswith("2026") or gb not in fresh for gb, _, row in offers)


def test_an_old_price_of_memory_is_carried_and_says_so() -> None:
    book = PriceBook("CN", "2026-11")
    row = next(row for gb, mts, row in book.modules("DDR4", "RDIMM") if (gb, mts) == (64, 2400))
    part = book.line("64 GB", 4, row)
    low, high = part.bounds
    assert row.dimm_form == "LRDIMM" and row.date < "2026" and part.carried and not part.certain
    assert 2 * 4 * row.each < low < (part.total or 0) < high < 10 * 4 * row.each
    then = PriceBook("CN", "2025-02")
    assert not then.line("64 GB", 4, row).carried and PriceBook("CN", "2026-11", 2.0).each(row) == 2 * row.each


def test_the_index_rises_between_its_months_and_stays_after_the_last() -> None:
    later = ("2025-02", "2025-10", "2025-12", "2026-02", "2027-02")
    mids = [factor("DDR5 UDIMM", "CN", "2025-02", month).mid for month in later]
    assert mids[0] == 1 and mids == sorted(mids) and mids[3] == mids[4] == pytest.approx(4.6)
    assert factor("cases", "CN", "2020-01", "2026-01").mid == 1 and factor("SSD", "US", "2026-02", "2025-02").mid == 1


def test_what_no_source_has_a_price_for_is_a_range_with_its_formula() -> None:
    book = PriceBook("CN", "2026-11")
    for category, item in ("platform", "HP Z840"), ("platform", "Supermicro H12SSL-i / -CT"), ("cpu", "AMD EPYC 7742"):
        part = book.part(category, item)
        assert part.price is not None and part.price.inferred and part.bounds[0] < part.bounds[1], item
        assert part.price.region == "CN" and " x " in part.price.source, item
    sizes = {gb: row for gb, _, row in book.modules("DDR4", "RDIMM")}
    assert sizes[8].inferred and sizes[16].inferred and not sizes[64].inferred
    assert book.part("cpu", "Intel Xeon E5-2680 v4").price.each == 62  # type: ignore[union-attr]


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


def test_own_prices_in_a_currency_without_a_rate(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[[price]]\ncategory = "cpu"\nitem = "AMD EPYC 7302"\nprice = 20000\n', encoding="utf-8")
    book = PriceBook("JP", own=own_prices(file, "JP", "JPY"))
    assert book.part("cpu", "AMD EPYC 7302").total == 20000
    assert book.part("cpu", "AMD EPYC 7402").price is None and not book.modules("DDR4", "RDIMM")


def test_the_factor_of_memory_counts_once() -> None:
    prices = [{gb: book.each(row) for gb, _, row in book.modules("DDR4", "RDIMM") if row.inferred}
              for book in (PriceBook("CN", "2025-02", 2.0), PriceBook("CN", "2025-02", 4.0))]  # fmt: skip
    assert prices[0] and prices[0].keys() == prices[1].keys()
    for gb, price in prices[0].items():
        assert prices[1][gb] == pytest.approx(2 * price), gb


def test_a_price_of_a_month_from_which_nothing_changed_is_one_figure() -> None:
    assert factor("DDR4 RDIMM", "US", "2026-05", "2026-11") == UNCHANGED
    assert factor("DDR4 RDIMM", "US", "2025-02", "2026-11") != UNCHANGED
    row = PriceBook("US", "2026-11").modules("DDR4", "RDIMM")[0][2]
    assert Part("x", 1, row, factor=Factor(1.0, 0.5, 2.0)).carried


def test_a_range_abroad_stays_a_range() -> None:
    row = PriceRow("gpu", "P106", "", "", None, None, None, "kit of 2", "used", None, 200, 800, "CNY", "2025-02", "CN",
                   "somebody", "high")  # fmt: skip
    part = PriceBook("US", "2025-03", rows=[*all_prices(), row]).part("gpu", "P106")
    assert part.price is not None
    assert part.bounds == pytest.approx((100 / 7.15 * 0.7, 400 / 7.15 * 1.7))
    for word in ("100 to 400 CNY in CN (2025-02)", "x 0.14", "x 0.7 to 1.7"):
        assert word in part.price.source


def test_neighbours_abroad_widen_by_both() -> None:
    rows = [PriceRow("cpu", "AMD EPYC 7402", "", "", None, None, None, "piece", "used", 1000, None, None, "CNY",
                     "2026-09", "CN", "somebody", "high")]  # fmt: skip
    rows += [row for row in all_prices() if row.category == "electricity"]
    part = PriceBook("US", "2026-09", rows=rows).part("cpu", "AMD EPYC 7302")
    assert part.price is not None and part.bounds == pytest.approx((1000 / 7.15 * 0.7 * 0.7, 1000 / 7.15 * 1.7 * 1.5))
    for word in ("CNY in CN (2026-09)", "x 0.14", "x 0.7 to 1.7", "x 1.5"):
        assert word in part.price.source
