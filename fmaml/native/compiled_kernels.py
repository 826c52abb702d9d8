"""Kernels in C for a CPU, compiled once by the machine's own compiler and kept in the cache folder.

Compiling takes about a second. Without a compiler, or where the folder cannot be written, `kernels` gives None, and
torch's operations serve. The file's name holds a digest of the source, the compiler and the processor.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from ..errors import Error
from ..files.cache_folder import cache_folder

SOURCE = Path(__file__).with_name("block.c")
REALS = {torch.float32: "float", torch.float64: "double"}
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-fopenmp")


@functools.cache
def kernels(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The functions of block.c for numbers of this type; None if there are none."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if dtype not in REALS or compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler, REALS[dtype])))
    except (OSError, Error, subprocess.SubprocessError):
        return None


def _compiled(compiler: str, real: str) -> Path:
    """The shared library for numbers of the C type ``real``, compiled if it is not in the cache folder."""
    path = cache_folder() / "kernels" / f"block-{real}-{_digest(compiler)}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            code, library = Path(scratch) / "block.o", Path(scratch) / "block.so"
            run = functools.partial(subprocess.run, check=True, capture_output=True, timeout=60)
            run([compiler, f"-DREAL={real}", *FLAGS, "-c", SOURCE, "-o", code])
            run([compiler, "-shared", code, "-o", library])  # OpenMP is torch's own, which is loaded already
            library.replace(path)
    return path


def _digest(compiler: str) -> str:
    """Identifies the source, the compiler and the processor, since a home folder may be shared by machines."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    processor = Path("/proc/cpuinfo")
    flags = [line for line in processor.read_text().splitlines() if line.startswith(("flags", "model name"))][:2]
    parts = (SOURCE.read_bytes(), version, platform.machine().encode(), "".join(flags).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
