import ctypes
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from llvmlite import binding

from seventy.jit import compiler
from seventy.jit.compiler import Kernel, Library
from seventy.jit.isa import LEVELS, Isa, select
from tests.support.kernels import ALL, ALL_LEVELS, TOPK, objects


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiler, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("level", ALL_LEVELS, ids=lambda level: level.name)
def test_no_kernel_has_an_undefined_symbol(level: Isa) -> None:
    # An unresolved symbol does not fail when the object is loaded; it crashes when it is called.
    for kernel, data in objects(level):
        elf = ELFFile(BytesIO(data))
        symbols = list(elf.get_section_by_name(".symtab").iter_symbols())[1:]
        undefined = [symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"]
        assert not undefined, f"{kernel} at {level.name} wants {undefined}"


def test_second_load_compiles_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isa = select("generic")
    Library(isa).load([TOPK])
    monkeypatch.setattr(compiler, "compile_object", lambda *_: pytest.fail("compiled again"))
    assert Library(isa).address(TOPK)


@pytest.mark.parametrize("damage", [b"", b"x", None], ids=["emptied", "replaced", "bit flipped"])
def test_damaged_object_is_compiled_again(cache: Path, damage: bytes | None) -> None:
    isa = select("generic")
    Library(isa).load([TOPK])
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    path.write_bytes(flipped if damage is None else damage)
    Library(isa).load([TOPK])
    assert path.read_bytes() == whole


def test_another_isa_sources_or_parameters_are_another_object() -> None:
    keys = {compiler._key(TOPK, level) for level in LEVELS.values()}
    keys.add(compiler._key(Kernel(TOPK.builder, (1,)), LEVELS["generic"]))
    assert len(keys) == len(LEVELS) + 1


def test_every_module_that_writes_kernels_is_among_the_sources() -> None:
    for kernel in ALL:
        kernel.module(LEVELS["generic"])
    prefixes = tuple(f"seventy.{folder}." for folder in compiler._SOURCES)
    modules = [module for name, module in sys.modules.items() if name.startswith(prefixes)]
    assert {Path(str(module.__file__)) for module in modules} <= set(compiler.sources())
    assert any(module.__name__ == "seventy.kernels.product.vector" for module in modules)


def test_folder_that_cannot_be_written_is_no_error_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below"
    monkeypatch.setattr(compiler, "cache_folder", lambda: folder)
    monkeypatch.setattr(compiler, "_warned", False)
    for _ in range(2):
        assert Library(select("generic")).address(TOPK)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("seventy.jit", "WARNING")
    assert str(folder) in record.getMessage() and "XDG_CACHE_HOME" in record.getMessage()


def test_full_disk_leaves_no_files_and_is_said_once(tmp_path: Path) -> None:
    # A limit on the size of files: they can be made and not be written, as on a full disk. Processes compile, too.
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "from seventy.jit.compiler import *; from seventy.jit.isa import select\n"
        "names = ('q8_256', 'q8_32', 'f32')\n"
        "kernels = [Kernel('seventy.kernels.activations:build', (s, n)) for s in ('plain', 'norm') for n in names]\n"
        "library = Library(select('generic')); library.load(kernels, workers=2)\n"
        "print(len({library.address(kernel) for kernel in kernels}))"
    )
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path))
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    folder = tmp_path / "seventy" / "objects"
    assert (result.returncode, result.stdout) == (0, "6\n"), result.stderr
    assert list(folder.iterdir()) == []
    assert result.stderr.count("\n") == 1 and f"cannot be kept in {folder} (File too large)" in result.stderr


def test_other_users_of_llvm_get_their_own_code() -> None:
    # A chain of sums, which LLVM's machine combiner makes a tree of.
    lines = [f"  %v{i} = add i32 %{f'v{i - 1}' if i else 'a0'}, %a{i + 1}" for i in range(7)]
    arguments = ", ".join(f"i32 %a{i}" for i in range(8))
    text = "\n".join([f"define i32 @sum({arguments}) {{", *lines, "  ret i32 %v6", "}"])
    compiler._start_llvm()

    def assembly() -> str:
        module = binding.parse_assembly(text)
        return str(binding.Target.from_default_triple().create_target_machine(opt=3).emit_assembly(module))

    with compiler._without_machine_combiner():
        chain = assembly()
    tree = assembly()
    assert tree != chain
    compiler.compile_object(TOPK, select("generic"))
    assert assembly() == tree


def test_kernels_in_folders_below_are_sources_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels" / "below").mkdir(parents=True)
    (tmp_path / "jit").mkdir()
    monkeypatch.setattr(compiler, "_ROOT", tmp_path)
    digests = set()
    for path in ("kernels/a.py", "kernels/below/a.py"):
        (tmp_path / path).write_text("x = 1\n")
        digests.add(compiler.sources_digest.__wrapped__())
    (tmp_path / "kernels/below/a.py").write_text("x = 2\n")
    digests.add(compiler.sources_digest.__wrapped__())
    assert len(digests) == 3


def test_worker_processes_fill_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    kernels, seen = ALL[-6:], []
    library = Library(select("generic"))
    library.load(kernels, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(kernels)) for i in range(len(kernels))]
    assert len({library.address(kernel) for kernel in kernels}) == len(kernels)


def test_writers_at_once_leave_a_whole_object(tmp_path: Path) -> None:
    script = (
        "from seventy.jit.compiler import *; from seventy.jit.isa import select\n"
        "Library(select('generic')).load([Kernel('seventy.kernels.topk:build')])"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    writers = [subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    (path,) = (tmp_path / "seventy" / "objects").iterdir()
    assert compiler._read_cached(path)


def test_main_module_is_not_imported_again(tmp_path: Path) -> None:
    # A script without a main guard must be able to load a model, hence to compile.
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\nfrom seventy.jit.compiler import *\nfrom seventy.jit.isa import select\n"
        "names = ('q8_256', 'q8_32', 'f32')\n"
        "kernels = [Kernel('seventy.kernels.activations:build', (s, n)) for s in ('plain', 'norm') for n in names]\n"
        "Library(select('generic')).load(kernels, workers=2)\n"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr, result.returncode) == ("once\n", "", 0)


def test_kernel_loaded_from_the_cache_still_works(cache: Path) -> None:
    import numpy as np

    isa = select()
    for _ in range(2):
        function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 3)
        library = Library(isa)
        x = np.array([1, 5, 3], np.float32)
        values, indices, scratch = np.zeros(2, np.float32), np.zeros(2, np.int32), np.zeros(2, np.float32)
        addresses = (values.ctypes.data, indices.ctypes.data, scratch.ctypes.data)
        assert function(library.address(TOPK))(x.ctypes.data, 3, 2, *addresses) == 2
        assert indices.tolist() == [1, 2]
