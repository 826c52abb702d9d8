"""The device of a run, and the environment of its measurements."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import Error
from .launcher import ALONE, Launched


def pick_device(name: str, here: Launched = ALONE) -> torch.device:
    """The device called ``name``; "auto" is a GPU, or else the CPU. Raises Error if it cannot be used.

    Several processes on a machine have a GPU each.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if here.world_size > 1 and name.startswith("cuda"):
        if here.local_size > torch.cuda.device_count():
            raise Error(
                f"--device {name}: {here.local_size} processes on this machine, {_describe_gpus()}; start one process "
                f"a GPU, or use --device cpu"
            )
        name = f"cuda:{here.local_rank}"
        torch.cuda.set_device(here.local_rank)
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise Error(
            f"--device {name}: not usable with this PyTorch ({torch.__version__}); "
            f"{_describe_gpus()}; use --device auto or --device cpu"
        ) from error
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """The conditions of a measurement: command, hardware, versions, commit."""
    packages = ("torch", "numpy", "einops", "safetensors", "pillow", "matplotlib")
    return {
        "command": sys.argv,
        "device": str(device),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "fmaml": __version__,  # importlib knows it only if the package is installed
        "commit": commit(),
        "versions": {name: version(name) for name in packages} | {"torch": torch.__version__},
    }


def hardware(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def commit() -> str | None:
    """The commit of the package's git checkout, with "+" if files have changed; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails if the package lies in another repository
        changed = "+" if git("status", "--porcelain", "-uno") else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None


def _describe_gpus() -> str:
    count = torch.cuda.device_count()
    return f"{count} CUDA {'device' if count == 1 else 'devices'} found"
