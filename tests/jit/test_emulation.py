import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_kernels_run_on_older_cpus() -> None:
    """Two formats and the SIMD language; scripts/emulate without arguments runs all kernels."""
    if not (shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")):
        pytest.skip("qemu's user mode is not installed (Debian: qemu-user)")
    matmul = "tests/kernels/test_matmul.py::test_product_equals_its_twin"
    tests = ["tests/jit/test_simd.py", matmul, "-k", "simd or 2-17-3-Q4_K or 2-17-3-IQ4_NL"]
    result = subprocess.run([ROOT / "scripts" / "emulate", *tests], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
