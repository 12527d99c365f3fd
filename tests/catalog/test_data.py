"""Every table of the catalogue loads, and its rows agree with each other."""

import re

import pytest

from seventy.catalog import cpus, measurements, models
from seventy.catalog.article import the_article
from seventy.catalog.bundles import all_bundles
from seventy.catalog.inflation import Index
from seventy.catalog.measurements import all_measurements
from seventy.catalog.prices import all_prices
from seventy.catalog.rows import load, make
from seventy.errors import SeventyError


def test_names_are_unique() -> None:
    for names in ([c.name for c in cpus.all_cpus()], [m.name for m in models.all_models()],
                  [m.id for m in measurements.all_measurements()]):  # fmt: skip
        assert len(names) == len(set(names))


def test_article_speaks_of_catalogued_parts() -> None:
    known = {cpu.name for cpu in cpus.all_cpus()}
    article = the_article()
    assert {build.cpu for build in article.builds} <= known
    assert {name for name, _, _ in article.ranking} <= known
    assert len(article.builds) == 6 and len(article.ranking) == 16


def test_measured_cpus_are_in_the_catalogue() -> None:
    for row in measurements.all_measurements():
        if row.cpu and row.known_layout and not row.exclude:
            assert cpus.find_cpu(row.cpu, cpus.all_cpus())[0] is not None, row.id


@pytest.mark.parametrize(
    "text, name",
    [
        ("E5-2680 v4", "Intel Xeon E5-2680 v4"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "Intel Xeon E5-2680 v4"),
        ("AMD EPYC 7702 64-Core Processor", "AMD EPYC 7702"),
        ("i9-13900k", "Intel Core i9-13900K"),
        ("8845hs", "AMD Ryzen 7 8845HS"),
        ("AMD Ryzen 7 8845HS w/ Radeon 780M Graphics", "AMD Ryzen 7 8845HS"),
        ("M2 Ultra", "Apple M2 Ultra"),
    ],
)
def test_cpu_names_as_people_write_them(text: str, name: str) -> None:
    found, _ = cpus.find_cpu(text, cpus.all_cpus())
    assert found is not None and found.name == name


def test_unknown_cpu_gets_close_names() -> None:
    found, close = cpus.find_cpu("Xeon E5-2680 v5", cpus.all_cpus())
    assert found is None and "Intel Xeon E5-2680 v4" in close


def test_models_in_usual_spellings() -> None:
    assert models.find_model("llama-3.3-70b").name == "Llama-3.3-70B-Instruct"
    assert models.find_model("70B").name == "Llama-3.3-70B-Instruct"
    assert models.find_model("deepseek-r1").params_b > 600
    with pytest.raises(SeventyError, match="did you mean"):
        models.find_model("llama-3.3-71b")


def test_bad_cells_name_file_and_line() -> None:
    with pytest.raises(SeventyError, match=r"mine\.csv line 3: year is 'old'"):
        make(cpus.Cpu, {"name": "x", "vendor": "y", "microarch": "z", "year": "old"}, "mine.csv line 3")
    with pytest.raises(SeventyError, match="unknown column 'colour'"):
        make(cpus.Cpu, {"colour": "red"}, "mine.csv line 2")


def test_sources_on_the_web_name_a_page() -> None:
    rows = [*all_measurements(), *all_prices(), *all_bundles(), *load("inflation.csv", Index)]
    for row in rows:
        for address in re.findall(r"https?://\S+", row.source):
            path = address.split("/", 3)[3:]
            assert path and path[0].strip("/") not in ("", "editorial", "hardware/ssds"), row


def test_no_bundle_has_a_drive_that_its_source_does_not_name() -> None:
    assert not [bundle for bundle in all_bundles() if bundle.ssd_gb and "drive" in bundle.notes]
