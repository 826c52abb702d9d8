"""Find models: files, run folders, and the trained models that come with fmaml. Imports no torch."""

import difflib
import json
from pathlib import Path
from typing import Any

from ..errors import Error

SHELF = Path(__file__).parent / "bundled"  # each model is a file, with its card beside it
MODELS_OF_A_RUN = ("model.safetensors", "best.safetensors")  # meta-testing writes the first, with its results


def model_names() -> list[str]:
    """The names of the models that come with fmaml, sorted."""
    return sorted(path.stem for path in SHELF.glob("*.safetensors"))


def find_model(model: str | Path) -> Path:
    """The file of a model, from its path, its run folder or its name; Error if there is none."""
    path = Path(model)
    if path.is_dir():
        found = next((path / name for name in MODELS_OF_A_RUN if (path / name).is_file()), None)
        if found is None:
            raise Error(f"{path}: no model in it; name a model file, or the folder of a run with a validation")
        return found
    if path.exists():
        return path
    if str(model) in model_names():
        return SHELF / f"{model}.safetensors"
    closest = difflib.get_close_matches(str(model), model_names(), 1)
    cure = f"did you mean {closest[0]}? " if closest else ""
    raise Error(f"{model}: no such file, and no model of that name; {cure}`fmaml ls models` lists them")


def metadata_on_shelf(name: str) -> dict[str, Any]:
    """The metadata of a model that comes with fmaml, from the header of its file."""
    with (SHELF / f"{name}.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["fmaml"])
