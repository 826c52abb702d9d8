"""The tutorials: notebooks without outputs, executed, and written as Markdown with what they printed and drew.

``python docs/making/notebooks.py [NAME ...]`` executes them, ends with 1 at the first error, and keeps what came out
for the site; ``--strip`` takes the outputs out of the notebooks themselves, after they were edited.
"""

import argparse
import base64
import hashlib
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TOP = Path(__file__).parents[2]
FOLDER = TOP / "docs/tutorials"
KEPT = TOP / "build/tutorials"  # executed notebooks: what the tests made is what the site shows
PHOTO = "{.photo}"  # stays as it is in dark mode
SECONDS = 600  # for a cell, as long as tests wait: a machine may have much else to do
DESCRIPTION = re.compile(r"^# Picture: (.*)\n", re.MULTILINE)  # the alt text of the picture that a cell draws
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def source(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(name: str, *, anew: bool = False) -> Any:
    """The notebook with its outputs; those kept are taken if neither it nor fmaml changed since."""
    kept = KEPT / f"{name}-{_digest(name)}.ipynb"
    if anew or not kept.exists():
        notebook = _execute(source(name))
        KEPT.mkdir(parents=True, exist_ok=True)
        for old in KEPT.glob(f"{name}-*.ipynb"):
            old.unlink(missing_ok=True)
        nbformat.write(notebook, kept)
    return nbformat.read(kept, as_version=4)


def _digest(name: str) -> str:
    files = [FOLDER / f"{name}.ipynb", *sorted((TOP / "fmaml").rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _execute(notebook: Any) -> Any:
    """In an empty folder, with the fmaml of this checkout, and commands of this Python's environment."""
    with tempfile.TemporaryDirectory() as folder:
        search = [str(TOP), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(search),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "IPYTHONDIR": f"{folder}/.ipython",
            "XDG_CACHE_HOME": f"{folder}/.cache",
            "COLUMNS": "88",
            "OMP_NUM_THREADS": "1",  # others may run beside it
        }
        environment.pop("MPLBACKEND", None)
        options: dict[str, Any] = {"timeout": SECONDS, "kernel_name": "python3", "coalesce_streams": True}
        options["extra_arguments"] = ["--IPKernelApp.log_level=ERROR"]
        client = NotebookClient(notebook, resources={"metadata": {"path": folder}}, **options)
        return client.execute(env=environment)


def as_markdown(name: str, notebook: Any) -> tuple[str, dict[str, bytes]]:
    """The page, and the pictures that it shows, by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        described = DESCRIPTION.search(cell.source)
        code = DESCRIPTION.sub("", cell.source)
        parts.append(_block("bash" if code.startswith("%%bash\n") else "python", code))
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                picture = f"{name}_{len(pictures)}.png"
                pictures[picture] = base64.b64decode(output.data["image/png"])
                assert described, f"{name}: a cell that draws begins with a line `# Picture: ..`, which describes it"
                kind = PHOTO if name == "photographs" else ""
                parts.append(f"![{described[1]}]({picture}){kind}")
            elif output.get("name") != "stderr":  # progress bars
                parts.append(_block('text title="output"', _text(output)))
    return "\n\n".join(filter(None, parts)) + "\n", pictures


def _block(kind: str, text: str) -> str:
    text = text.removeprefix("%%bash\n").rstrip()
    return f"```{kind}\n{text}\n```" if text else ""


def _text(output: Any) -> str:
    """As a terminal would show it: without colours, of a progress bar its last state."""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in COLOURS.sub("", text).split("\n")]
    return "\n".join(lines).strip("\n")


def strip(name: str) -> None:
    notebook = source(name)
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", default=names())
    parser.add_argument("--strip", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.name:
        if arguments.strip:
            strip(name)
            continue
        start = time.perf_counter()
        executed(name, anew=True)
        print(f"{name}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
