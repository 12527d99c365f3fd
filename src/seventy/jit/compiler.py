"""From kernels to machine code: LLVM, and a cache of objects that makes the second start instant."""

import functools
import hashlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import platformdirs
from llvmlite import binding

from seventy.jit.build import Module
from seventy.jit.isa import Isa

_ROOT = Path(__file__).parent.parent
_SOURCES = ("jit", "formats", "kernels")
_MAGIC = b"seventy-object-1\n"


@dataclass(frozen=True, slots=True)
class Kernel:
    """What to compile, known before any IR exists.

    `builder` names a function as `module:function`; called with a Module and `parameters` it writes a function
    called `kernel` into it.
    """

    builder: str
    parameters: tuple[Any, ...] = ()

    def module(self, isa: Isa) -> Module:
        path, _, name = self.builder.partition(":")
        build: Callable[..., None] = getattr(import_module(path), name)
        module = Module(isa)
        build(module, *self.parameters)
        return module


def cache_folder() -> Path:
    return Path(platformdirs.user_cache_dir("seventy")) / "objects"


def sources() -> list[Path]:
    """Every file a kernel's code can depend on."""
    return [path for folder in _SOURCES for path in sorted((_ROOT / folder).rglob("*.py"))]


@functools.cache
def sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sources():
        digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _key(kernel: Kernel, isa: Isa) -> str:
    parts = (kernel, isa, binding.get_host_cpu_name(), binding.llvm_version_info, sources_digest())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@functools.cache
def _start_llvm() -> None:
    # It makes trees of sums, which need more registers than there are (docs/lab.md).
    binding.set_option("seventy", "-x86-machine-combiner=false")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def _target_machine(isa: Isa) -> binding.TargetMachine:
    _start_llvm()
    features = ",".join(f"+{name}" for name in isa.features)
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu="x86-64", features=features, opt=3, reloc="pic", codemodel="small")


def _optimised(kernel: Kernel, isa: Isa) -> tuple[binding.ModuleRef, binding.TargetMachine]:
    machine = _target_machine(isa)
    # no-builtins: else LLVM turns a loop that clears memory into a call of memset, which nobody resolves.
    attributes = f'nounwind "no-builtins" "tune-cpu"="{binding.get_host_cpu_name()}"'
    if isa.narrowed:
        # Vectors of 512 bits that a kernel still names are split.
        attributes += ' "prefer-vector-width"="256" "min-legal-vector-width"="0"'
    text = kernel.module(isa).text(attributes)
    module = binding.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    # Few passes, by name: the usual ones hoist and share what the kernel's author meant to do again, and then spill.
    passes = binding.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_dead_code_elimination_pass()
    passes.run(module, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options()))
    return module, machine


def compile_object(kernel: Kernel, isa: Isa) -> bytes:
    """The kernel as an object file (ELF)."""
    module, machine = _optimised(kernel, isa)
    return machine.emit_object(module)


def compile_assembly(kernel: Kernel, isa: Isa) -> str:
    """The kernel as assembly text, for people and for tests."""
    module, machine = _optimised(kernel, isa)
    return machine.emit_assembly(module)


def _read_cached(path: Path) -> bytes | None:
    """The object at `path`, or None where there is none or its checksum is wrong."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + 32
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
        return None
    return data[start:]


def _write_cached(path: Path, data: bytes) -> None:
    """Whole or not at all, whoever else writes the same file; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(_MAGIC + hashlib.sha256(data).digest() + data)
        Path(temporary).replace(path)
    except OSError:
        return


def _compile_to_cache(kernel: Kernel, isa: Isa) -> bytes:
    path = cache_folder() / _key(kernel, isa)
    data = _read_cached(path)
    if data is None:
        data = compile_object(kernel, isa)
        _write_cached(path, data)
    return data


class Library:
    """Compiled kernels in this process."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        _start_llvm()
        # JITLink keeps a kernel's code and constants together; RuntimeDyld lets them drift over 2 GB apart where large
        # models lie between, and then ends the process.
        self._jit = binding.create_lljit_compiler(_target_machine(isa), use_jit_link=True, suppress_errors=True)
        self._loaded: dict[Kernel, tuple[int, Any]] = {}

    def load(
        self, kernels: Iterable[Kernel], workers: int = 1, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Makes every kernel callable: from the cache, else compiled, by up to `workers` processes.

        `progress(done, total)` is called while compiling.
        """
        wanted = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self._loaded]
        missing = []
        for kernel in wanted:
            data = _read_cached(cache_folder() / _key(kernel, self.isa))
            if data is None:
                missing.append(kernel)
            else:
                self._link(kernel, data)
        for done, (kernel, data) in enumerate(_compile_all(missing, self.isa, workers)):
            self._link(kernel, data)
            if progress:
                progress(done + 1, len(missing))

    def address(self, kernel: Kernel) -> int:
        """The address of the kernel's machine code."""
        if kernel not in self._loaded:
            self.load([kernel])
        return self._loaded[kernel][0]

    def _link(self, kernel: Kernel, data: bytes) -> None:
        builder = binding.JITLibraryBuilder().add_object_img(data).export_symbol("kernel")
        tracker = builder.link(self._jit, f"k{len(self._loaded)}")
        self._loaded[kernel] = (tracker["kernel"], tracker)


def _compile_all(kernels: list[Kernel], isa: Isa, workers: int) -> Iterable[tuple[Kernel, bytes]]:
    """LLVM holds a lock, so threads would take turns: with enough to do, processes compile."""
    workers = min(workers, len(kernels), 8)
    if workers < 2 or len(kernels) < 4:
        yield from ((kernel, _compile_to_cache(kernel, isa)) for kernel in kernels)
        return
    # Not multiprocessing: it would import the user's main module again.
    command = [sys.executable, "-c", "from seventy.jit.compiler import serve; serve()"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(workers)]
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)
    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(_ask, idle, kernel, isa): kernel for kernel in kernels}
            for future in as_completed(futures):
                yield futures[future], future.result()
    finally:
        for process in processes:
            process.communicate()


def _ask(idle: "queue.SimpleQueue[subprocess.Popen[bytes]]", kernel: Kernel, isa: Isa) -> bytes:
    process = idle.get()
    try:
        assert process.stdin and process.stdout
        pickle.dump((kernel, isa), process.stdin)
        process.stdin.flush()
        data: bytes = pickle.load(process.stdout)
        return data
    except (OSError, EOFError, pickle.UnpicklingError):
        # The process could not live (a sandbox, too little memory): this one does its work.
        return _compile_to_cache(kernel, isa)
    finally:
        idle.put(process)


def serve() -> None:
    """A worker process: compiles what comes on stdin until it closes."""
    while True:
        try:
            kernel, isa = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_compile_to_cache(kernel, isa), sys.stdout.buffer)
        sys.stdout.buffer.flush()
