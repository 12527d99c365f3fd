"""The page's libraries are the files that their table says, and everything of the page is its own."""

import hashlib
import re
from pathlib import Path

import seventy.server
from seventy.language import Message, said

PAGE = Path(seventy.server.__file__).with_name("page")


def test_libraries_are_what_the_table_says() -> None:
    vendor = PAGE / "vendor"
    rows = [line.strip("| \n").split(" | ") for line in (vendor / "README.md").read_text().splitlines()]
    table = {row[0]: (int(row[3]), row[4]) for row in rows if len(row) == 5 and row[3].isdigit()}
    covered = set()
    for name, (size, digest) in table.items():
        files = sorted(vendor.glob(name))
        covered |= set(files)
        data = b"".join(file.read_bytes() for file in files)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, digest), name
    code = {file for file in vendor.rglob("*") if file.suffix in (".js", ".bcmap")}
    assert code == covered
    for name in table:
        licence = vendor / (f"{name.split('.')[0]}.LICENSE" if "/" not in name else "cmaps/LICENSE")
        assert licence.exists(), name


def test_the_page_names_no_other_host() -> None:
    for file in (*PAGE.glob("*.js"), *PAGE.glob("*.html"), *PAGE.glob("*.css")):
        assert not re.findall(r"https?://\w", file.read_text()), file.name


def test_both_languages_say_everything() -> None:
    text = (PAGE / "words.js").read_text()
    english, chinese = text.split("  zh: {")
    word = re.compile(r"(?:^ {4}|[\"`}], )(\w+): (?=[\"(`{]|\w+ =>)", re.MULTILINE)
    names = [set(word.findall(part.split("\n};")[0])) for part in (english.split("  en: {")[1], chinese)]
    assert names[0] == names[1] and len(names[0]) > 80


def test_what_page_and_terminal_both_say_is_one_text_in_chinese() -> None:
    word = re.compile(r'(\w+|"[\w ]+"): "([^"]+)"')
    english, chinese = (word.findall(part) for part in (PAGE / "words.js").read_text().split("  zh: {"))
    said_here = dict(chinese)
    # Keys in quotes are what the engine says, as the API has it.
    pairs = {(key.strip('"') if key[0] == '"' else text): said_here[key] for key, text in english}
    known = {text: chinese for text, chinese in pairs.items() if said(Message(text), "zh") != text}
    assert {"loading weights", "compiling kernels"} <= set(known)
    assert known == {text: said(Message(text), "zh") for text in known}
