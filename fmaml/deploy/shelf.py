"""The trained models that come with fmaml, each a file with its card beside it. Imports no torch."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "models"


def names() -> list[str]:
    """The names of the models, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def path_of(name: str) -> Path:
    """The model's file."""
    return FOLDER / f"{name}.safetensors"
