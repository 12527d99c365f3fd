"""From kernels to machine code: LLVM, and a cache of objects that makes the second start instant."""

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
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
_log = logging.getLogger("seventy.jit")
_emitting = threading.Lock()


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to compile, identified by its builder and parameters.

    `builder` names a function as `module:function`; called with a Module and `parameters` it writes a function called
    `kernel` into it.
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
    """List every file a kernel's code can depend on."""
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


@contextlib.contextmanager
def _without_machine_combiner() -> Iterator[None]:
    """Turn off a pass of LLVM's code generator meanwhile.

    It makes trees of sums, which need more registers than there are (docs/lab.md). No attribute of a function or of a
    target machine says so, only an option of the whole process, where others may use LLVM too.
    """
    with _emitting:
        binding.set_option("seventy", "-x86-machine-combiner=false")
        try:
            yield
        finally:
            binding.set_option("seventy", "-x86-machine-combiner=true")


def compile_object(kernel: Kernel, isa: Isa) -> bytes:
    """Compile the kernel to an object file (ELF)."""
    module, machine = _optimised(kernel, isa)
    with _without_machine_combiner():
        return machine.emit_object(module)


def compile_assembly(kernel: Kernel, isa: Isa) -> str:
    """Compile the kernel to assembly text, for people and for tests."""
    module, machine = _optimised(kernel, isa)
    with _without_machine_combiner():
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
    """Write the file whole or not at all, whoever else writes it; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(_MAGIC + hashlib.sha256(data).digest() + data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        _warn_once(path.parent, error.strerror or repr(error))


_warned = False


def _warn_once(folder: Path, reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        _log.warning(
            "compiled kernels cannot be kept in %s (%s), so every start compiles them again; make room there and make "
            "it writable, or set XDG_CACHE_HOME to a folder that is",
            folder,
            reason,
        )


def _object(kernel: Kernel, isa: Isa) -> bytes:
    """The kernel's object: from the cache, where another process has put it meanwhile, else compiled."""
    return _read_cached(cache_folder() / _key(kernel, isa)) or compile_object(kernel, isa)


class Library:
    """Compiled kernels in this process; several threads may load kernels into it at once."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        _start_llvm()
        # JITLink keeps a kernel's code and constants together; RuntimeDyld lets them drift over 2 GB apart where large
        # models lie between, and then ends the process.
        self._jit = binding.create_lljit_compiler(_target_machine(isa), use_jit_link=True, suppress_errors=True)
        self._loaded: dict[Kernel, tuple[int, Any]] = {}
        self._loading = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """A name for what decides the last bits of a result besides model and request.

        It is the ISA level with its vector width (`isa.name`), and a digest of the kernels' sources.
        """
        return f"{self.isa.name}-{sources_digest()[:12]}"

    def load(
        self, kernels: Iterable[Kernel], workers: int = 1, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Make every kernel callable: from the cache, else compiled, by up to `workers` processes.

        `progress(done, total)` is called while compiling. Loads of several threads take turns, so that what two of
        them want is compiled once.
        """
        with self._loading:
            wanted = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self._loaded]
            missing = []
            for kernel in wanted:
                data = _read_cached(cache_folder() / _key(kernel, self.isa))
                if data is None:
                    missing.append(kernel)
                else:
                    self._link(kernel, data)
            for done, (kernel, data) in enumerate(_compile_all(missing, self.isa, workers)):
                # Not by the processes that compile: one that cannot write would say so once each.
                _write_cached(cache_folder() / _key(kernel, self.isa), data)
                self._link(kernel, data)
                if progress:
                    progress(done + 1, len(missing))

    def address(self, kernel: Kernel) -> int:
        """Return the address of the kernel's machine code."""
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
        yield from ((kernel, _object(kernel, isa)) for kernel in kernels)
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
        return _object(kernel, isa)
    finally:
        idle.put(process)


def serve() -> None:
    """Run as a worker process: compile the kernels that arrive on stdin until it closes."""
    while True:
        try:
            kernel, isa = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_object(kernel, isa), sys.stdout.buffer)
        sys.stdout.buffer.flush()
