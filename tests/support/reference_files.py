"""Vocabularies, texts with their ids, and chat templates that llama.cpp tests itself with.

They are in the source package of llama-cpp-python, which is fetched once, from the index pip uses, and kept in the
cache folder of this user. Where that does not work, tests that need them fail and say why.
"""

import tarfile
from functools import cache
from pathlib import Path

import platformdirs

from seventy.errors import SeventyError
from seventy.gguf.arrays import GGUFArray
from seventy.gguf.file import GGUF
from seventy.hub.download import fetch, sha256_of
from seventy.hub.package_index import PackageIndex
from tests.support.gguf_writer import ARRAY, Typed, write

PACKAGE, NAME = "llama-cpp-python", "llama_cpp_python-0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_WANTED = f"{NAME}/vendor/llama.cpp/models/"
# Those whose tokenizer is known here.
VOCABULARIES = (
    "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2",
    "qwen35", "refact", "starcoder",
)  # fmt: skip


@cache
def folder() -> Path:
    """The folder `models` of llama.cpp. Raises SeventyError where it cannot be had."""
    target = Path(platformdirs.user_cache_dir("seventy")) / "tests" / NAME
    if not (target / "done").exists():
        _fetch(target)
    return target


def vocabulary(name: str) -> Path:
    """A GGUF file of one of VOCABULARIES, without tensors."""
    return folder() / f"ggml-vocab-{name}.gguf"


def model_of(name: str, path: Path) -> Path:
    """Writes a model with one of VOCABULARIES, of one layer of zeros: llama.cpp's wheel loads nothing less."""
    metadata: dict[str, object] = {
        "general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": 32,
        "llama.block_count": 1, "llama.feed_forward_length": 32, "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }  # fmt: skip
    with GGUF(vocabulary(name)) as gguf:
        for key, value in gguf.metadata.items():
            if key.startswith("tokenizer."):
                is_array = isinstance(value, GGUFArray)
                metadata[key] = Typed(ARRAY, list(value), value.type) if is_array else value
        size = len(gguf.metadata["tokenizer.ggml.tokens"])
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (32, size), "output_norm": (32,)}
    shapes |= {f"blk.0.{part}_norm": (32,) for part in ("attn", "ffn")}
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{part}": (32, 32) for part in parts}
    zeros = {f"{key}.weight": (shape, 0, bytes(4 * shape[0] * (*shape, 1)[1])) for key, shape in shapes.items()}
    return write(path, metadata, zeros)


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
