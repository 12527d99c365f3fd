from pathlib import Path

from tests.support.soak import leave_nothing_behind


def test_a_thousand_requests_leave_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    print(leave_nothing_behind(tiny, tmp_path / "server.log", requests=1000))
