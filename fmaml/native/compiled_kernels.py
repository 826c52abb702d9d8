"""Kernels in C for a CPU, compiled once by the machine's own compiler and kept in the cache folder.

Compiling takes about a second. Without a compiler, or where the folder cannot be written, `kernels` gives None, and
torch's operations serve. The file's name holds a digest of the source, the compiler and the processor.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from pathlib import Path

import torch

from ..errors import Error
from ..files.atomic import write_durably
from ..files.cache_folder import cache_folder

SOURCE = Path(__file__).with_name("block.c")
REALS = {torch.float32: "float", torch.float64: "double"}
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-fopenmp")


@functools.cache
def kernels(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The functions of block.c for numbers of this type; None if there are none."""
    if dtype not in REALS:
        return None
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        return ctypes.CDLL(str(_compiled(compiler, REALS[dtype])))
    except (OSError, ValueError, Error, subprocess.SubprocessError):
        return None


def kernels_in_use() -> str:
    """The name of the library for float32, which identifies source, compiler and processor; "none" without kernels."""
    library = kernels(torch.float32)
    return Path(library._name).stem if library else "none"


def _compiled(compiler: list[str], real: str) -> Path:
    """The shared library for numbers of the C type ``real``, compiled if it is not in the cache folder."""
    path = cache_folder() / "kernels" / f"block-{real}-{_digest(compiler)}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            code, library = Path(scratch) / "block.o", Path(scratch) / "block.so"
            run = functools.partial(subprocess.run, check=True, capture_output=True, timeout=60)
            run([*compiler, f"-DREAL={real}", *FLAGS, "-c", SOURCE, "-o", code])
            run([*compiler, "-shared", code, "-o", library])  # OpenMP is torch's own, which is loaded already
            write_durably(path, library.read_bytes())
    return path


def _digest(compiler: list[str]) -> str:
    """Identifies the source, the compiler, its options and the processor; machines may share a home folder."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    processor = Path("/proc/cpuinfo")
    flags = [line for line in processor.read_text().splitlines() if line.startswith(("flags", "model name"))][:2]
    parts = (compiler, FLAGS, version, platform.machine(), flags)
    return hashlib.sha256(SOURCE.read_bytes() + repr(parts).encode()).hexdigest()[:16]
