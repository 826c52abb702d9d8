"""Settings of the process, made by the command line and never by importing the library."""

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .errors import UserError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the allocator keep large blocks for reuse; True if it agreed.

    glibc gives big temporaries back to the system and faults them in again at the next step, which makes a vmapped
    meta-step on a CPU about twice as slow as it need be. Elsewhere nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    settings = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1, M_TOP_PAD: 256 << 20}
    return all(libc.mallopt(option, value) == 1 for option, value in settings.items())


def pick_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is the first GPU, or else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name}: not usable with this PyTorch ({torch.__version__}); "
            f"{_gpus()}; use --device auto or --device cpu"
        ) from error
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """What a measured number must be read with: hardware, versions, commit, command."""
    packages = ("torch", "numpy", "einops", "safetensors", "pillow", "matplotlib")
    return {
        "command": sys.argv,
        "device": str(device),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "fmaml": __version__,  # there also where the package is not installed
        "commit": commit(),
        "versions": {name: version(name) for name in packages} | {"torch": torch.__version__},
    }


def hardware(device: torch.device) -> str:
    """The processor's name, or the GPU's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def commit() -> str | None:
    """The commit of the checkout that the package lies in, "+" if it has changes; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a repository that merely surrounds us
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _gpus() -> str:
    count = torch.cuda.device_count()
    return f"{count} CUDA device{'s' * (count != 1)} found"
