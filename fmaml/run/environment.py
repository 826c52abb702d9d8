"""The device that a run is on, and what a measured number must be read with."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import UserError


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
