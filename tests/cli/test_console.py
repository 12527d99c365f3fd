"""Names of models, files and CPUs stand in tables as they are."""

from rich.table import Table

from seventy.cli._console import plain
from seventy.cli.pull import with_bar


def test_names_are_no_markup(capsys, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    name = "a[/b] [red]:key:.gguf"
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    plain(100).print(table)
    assert capsys.readouterr().out.count(name) == 3
    monkeypatch.setattr("seventy.cli.pull._stderr", plain(100, stderr=True))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert with_bar(name, lambda progress: progress(1, 2) or tmp_path) == tmp_path
