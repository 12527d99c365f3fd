"""Vocabularies, texts with their ids, and chat templates that llama.cpp tests itself with.

They are in the source package of llama-cpp-python, which is fetched once, from the index pip uses, and kept in the
cache folder of this user. Where that does not work, tests that need them are skipped and say why.
"""

import tarfile
from functools import cache
from pathlib import Path

import platformdirs
import pytest

from seventy.errors import SeventyError
from seventy.hub.download import fetch, sha256_of
from seventy.hub.package_index import PackageIndex

PACKAGE, NAME = "llama-cpp-python", "llama_cpp_python-0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_WANTED = f"{NAME}/vendor/llama.cpp/models/"


def folder() -> Path:
    """The folder `models` of llama.cpp; skips the test when it cannot be had."""
    target = Path(platformdirs.user_cache_dir("seventy")) / "tests" / NAME
    if not (target / "done").exists() and (reason := _why_not(target)):
        pytest.skip(f"llama.cpp's test files cannot be fetched: {reason}")
    return target


@cache
def _why_not(target: Path) -> str:
    """Fetches them; nothing, or what went wrong, which is not tried again in this run."""
    try:
        _fetch(target)
    except (SeventyError, OSError) as error:
        return str(error)
    return ""


def _fetch(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    index = PackageIndex.of_pip()
    link = index.find(PACKAGE, rf"{NAME}\.tar\.gz")
    archive = target / "sdist.part"
    fetch(index.network, link.url, archive, lambda done, total: None)
    if sha256_of(archive) != SHA256:
        archive.unlink()
        raise SeventyError(f"{link.url} came with wrong bytes; try again")
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name.removeprefix(_WANTED)
            if member.isfile() and path != member.name and ".." not in path:
                content = tar.extractfile(member)
                assert content is not None
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(content.read())
    archive.unlink()
    (target / "done").touch()
