"""Arrays out of pickles that people have on disk, with nothing executed.

A pickle is a program: it names functions, and they are called with arguments of its choice. Here the few names that
NumPy arrays are pickled under stand for stand-ins of our own, which gather bytes, shape and type; any other name is
refused before anything is made of it. Not even NumPy's own functions run: theirs take flags and object types from
the file on trust. Reads pickles of Python 2 and 3, of every protocol.
"""

import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ...errors import UserError

LARGEST = 500_000  # steps of its program, and numbers, texts and containers that come of it; CIFAR-100 has 260,000
KINDS = "biufSU"  # of types that hold plain numbers or text, as opposed to references


class Refused(Exception):
    """The pickle asks for more than arrays and plain containers."""


def read_pickle(path: Path, file: BinaryIO | None = None) -> Any:
    """What the pickle holds: arrays and plain containers of them, dict, list, tuple, text, numbers.

    ``file`` is the pickle where it is not a file of its own, and ``path`` then only names it.
    """
    try:
        if file is not None:
            return arrays(file)
        with path.open("rb") as opened:
            return arrays(opened)
    except Refused as error:
        raise UserError(
            f"{path}: {error}; a pickle may hold arrays, lists, dicts, text and numbers alone, as anything else could "
            f"run a program. Nothing of it was run: get the file from a source you trust"
        ) from None
    except Exception as error:  # whatever its bytes make the reader raise
        raise UserError(f"{path}: not a whole pickle of arrays ({error}); copy or download it again") from error


def arrays(file: BinaryIO) -> Any:
    """What it holds, after a look at how much it asks for; memory is taken for all numbers up to the highest in it."""
    budget = Budget()
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        budget.spend()
        if operation.name.endswith("PUT") and not 0 <= int(argument or 0) <= count:
            raise Refused(f"it numbers a thing {argument}, with {count} before it")
    file.seek(0)
    return plain(Restricted(file, encoding="latin1").load(), Budget())


class Budget:
    """How many things a pickle may hold, counted as often as they are used: twice at each of 40 levels is 2^40."""

    def __init__(self) -> None:
        self.left = LARGEST

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Refused(f"it holds more than {LARGEST} things")


class Restricted(pickle.Unpickler):
    """Knows the names below and no other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ADMITTED:
            return ADMITTED[module, name]
        raise Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise Refused("it asks for an object outside the file")


class _Type:
    """In place of numpy.dtype."""

    __slots__ = ("big", "type")

    def __init__(self, code: str, *_: Any) -> None:
        self.type, self.big = np.dtype(str(code)), False
        if self.type.kind not in KINDS or self.type.hasobject:
            raise Refused(f"it has an array of type {code}")

    def __setstate__(self, state: tuple) -> None:
        self.big = state[1] == ">"

    def array(self, content: Any) -> np.ndarray:
        content = content.encode("latin1") if isinstance(content, str) else content  # Python 2 knew no bytes
        return np.frombuffer(content, self.type.newbyteorder(">" if self.big else "<"))


class _Array:
    """In place of numpy.ndarray, and of the function that starts one."""

    __slots__ = ("array",)

    def __init__(self, *_: Any) -> None:
        self.array = None

    def __setstate__(self, state: tuple) -> None:
        shape, kind, fortran, content = state[-4:]
        self.array = kind.array(content).reshape(shape, order="F" if fortran else "C")


class _FromBuffer:
    """In place of the function that protocol 5 makes arrays with."""

    __slots__ = ("array",)

    def __init__(self, content: Any, kind: _Type, shape: tuple, order: str) -> None:
        self.array = kind.array(content).reshape(shape, order="F" if order == "F" else "C")


class _Scalar:
    """In place of the function that makes one number."""

    __slots__ = ("array",)

    def __init__(self, kind: _Type, content: Any) -> None:
        self.array = kind.array(content)[0].item()


class _Encoded:
    """In place of _codecs.encode: old protocols write bytes as text."""

    def __new__(cls, text: str, encoding: str = "latin1") -> bytes:
        return text.encode("latin1")


ADMITTED = {("numpy", "dtype"): _Type, ("numpy", "ndarray"): _Array, ("_codecs", "encode"): _Encoded}
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Array
    ADMITTED[f"{_core}.multiarray", "scalar"] = _Scalar
    ADMITTED[f"{_core}.numeric", "_frombuffer"] = _FromBuffer


def plain(found: Any, budget: Budget) -> Any:
    """The containers with real arrays in them."""
    budget.spend()
    match found:
        case _Array() | _FromBuffer() | _Scalar():
            return found.array
        case dict():
            return {key: plain(value, budget) for key, value in found.items()}
        case list() | tuple():
            return type(found)(plain(value, budget) for value in found)
    return found
