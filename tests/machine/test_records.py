from pathlib import Path

import pytest

from seventy.machine.records import keep


def test_a_file_that_cannot_be_put_in_its_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "figures"
    keep(path, "old")

    def fails(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        keep(path, "new")
    assert [each.name for each in path.parent.iterdir()] == ["figures"] and path.read_text() == "old"
    keep(path, "new")
    assert path.read_text() == "new"
