"""What tells a model from every other without reading all of it."""

import hashlib
import os

from seventy.gguf.source import Source

_SAMPLE = 4096


def fingerprint(source: Source) -> bytes:
    """Hash what identifies a model file: its metadata without lists; its tensors' names, shapes and types, and some
    bytes at three places of each; and its files' sizes and modification times.
    """
    whole = hashlib.sha256()
    scalars = {key: value for key, value in source.metadata.items() if isinstance(value, str | int | float)}
    whole.update(repr(sorted(scalars.items())).encode())
    files = set()
    for info in source.tensors.values():
        whole.update(repr((info.name, info.shape, info.type, info.nbytes)).encode())
        n = min(_SAMPLE, info.nbytes)
        for start in (0, (info.nbytes - n) // 2, info.nbytes - n):
            whole.update(source.pread(info, start, n).tobytes())
        if (file := source.fileno(info)) is not None and info.file not in files:
            files.add(info.file)
            status = os.fstat(file)
            whole.update(repr((status.st_size, status.st_mtime_ns)).encode())
    return whole.digest()
