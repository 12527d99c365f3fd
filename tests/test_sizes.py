import pytest

from seventy.sizes import module_size, size


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0.0 MB"), (98_362_432, "98.4 MB"), (999_900_000, "999.9 MB"), (999_960_000, "1.0 GB"),
        (42_520_000_000, "42.5 GB"), (64 << 30, "68.7 GB"), (2 << 40, "2199.0 GB"),
    ],
)  # fmt: skip
def test_sizes_are_of_1e9(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


def test_modules_keep_the_names_they_are_sold_under() -> None:
    assert [module_size(n << 20) for n in (32, 512, 16 << 10, 24 << 10)] == ["32 MB", "512 MB", "16 GB", "24 GB"]
