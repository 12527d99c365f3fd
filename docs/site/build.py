"""Builds the site from docs/: Chinese at its root, English below en/. Broken links, anchors and warnings are errors.

usage: python docs/site/build.py [FOLDER]      (build/docs when not given; the site is in FOLDER/site)
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import reference

_DOCS = Path(__file__).resolve().parents[1]
_ROOT = _DOCS.parent
_CHINESE = ".zh-CN.md"
_OTHERS = {"../SECURITY.md": "security.md", "../CHANGELOG.md": "changelog.md"}
_PICTURES = {".svg", ".png", ".jpg", ".webp"}


def stage(folder: Path) -> None:
    """Write the pages of each language, generated ones too, and the configurations into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {
        "zh": {path.name.replace(_CHINESE, ".md"): path for path in sorted(_DOCS.glob(f"*{_CHINESE}"))},
        "en": {path.name: path for path in sorted(_DOCS.glob("*.md")) if not path.name.endswith(_CHINESE)}
        | {name: _DOCS / path for path, name in _OTHERS.items()},
    }  # fmt: skip
    for language, files in pages.items():
        (folder / language).mkdir(parents=True)
        texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()} | reference.pages(language)
        for name, text in texts.items():
            text = _joined(text) if language == "zh" else text
            (folder / language / name).write_text(_linked(text, language, texts), encoding="utf-8")
        for picture in _DOCS.iterdir():
            if picture.suffix in _PICTURES:
                shutil.copy(picture, folder / language)
        shutil.copy(Path(__file__).with_name(f"{language}.toml"), folder)


def _joined(text: str) -> str:
    """Lines that were broken between Chinese characters, joined: a browser would show a space there."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    broken = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n[ ]*(?=[\u3000-\u9fff\uff00-\uffef])")
    return "".join(part if part.startswith("```") else broken.sub("", part) for part in parts)


def _linked(text: str, language: str, pages: dict[str, str]) -> str:
    """Links between files of docs/ as links between pages of the site, whose languages are folders."""

    def link(match: re.Match[str]) -> str:
        target, anchor = _OTHERS.get(match[1], match[1]), match[2] or ""
        chinese, name = target.endswith(_CHINESE), target.replace(_CHINESE, ".md")
        if chinese == (language == "zh") and name in pages:
            return f"]({name}{anchor})"
        if language == "en" and not chinese:
            return match[0]
        folder = "" if name == "index.md" else f"{name.removesuffix('.md')}/"
        return f"]({'../' if chinese else 'en/'}{folder}{anchor})"

    return re.sub(r"\]\(((?!https?:)[^)#\s]*\.md)(#[^)\s]*)?\)", link, text)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT / "build" / "docs"
    stage(folder)
    for language in ("zh", "en"):  # English last: its folder is inside the other's.
        command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "-f", f"{language}.toml"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}\n{folder}/{language}.toml: see above")
    print(f"{folder / 'site'}/index.html")


if __name__ == "__main__":
    main()
