"""Numbers are shown with three figures in the largest decimal unit that fits."""

import pytest

from studio.base.units import format_bytes, format_count


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (12_345, "12.3 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),
        (91_234_567, "91.2 MB"),
        (269_060_552, "269 MB"),
        (1_610_000_000, "1.61 GB"),
        (16e9, "16 GB"),
        (1.5e12, "1.5 TB"),
        (2e15, "2000 TB"),
        (-5e6, "-5 MB"),
    ],
)
def test_bytes_read_as_people_write_them(count: float, shown: str) -> None:
    assert format_bytes(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (576, "576"),
        (999_600, "1M"),
        (49_152, "49.2K"),
        (134_515_008, "135M"),
        (999_400_000, "999M"),
        (7_241_732_096, "7.24B"),
        (70_553_706_496, "70.6B"),
        (405_000_000_000, "405B"),
        (1_040_000_000_000, "1040B"),
    ],
)
def test_parameters_read_as_model_names_do(count: float, shown: str) -> None:
    assert format_count(count) == shown
