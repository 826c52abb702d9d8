"""Safe reading of NumPy arrays from pickles, without executing anything.

A pickle is a program: it names functions, which are called with arguments of its choice. Here the few names that NumPy
pickles arrays with are replaced by stand-in classes that only record bytes, shape and dtype; any other name is refused
before it is called. Not even NumPy's own functions run, because they trust flags and object types from the file.
Reads pickles of Python 2 and 3, of every protocol.
"""

import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ...errors import UserError
from ...files.regular import check_regular

_MAX_ITEMS = 500_000  # opcodes of a pickle, and objects and containers that it makes; CIFAR-100 has 260,000
_MAX_FILE_BYTES = 2_000_000_000  # the largest cache of mini-ImageNet has 813 million
_PLAIN_KINDS = "biufSU"  # NumPy dtype kinds of numbers and text, as opposed to references to objects


class _UnsafePickle(Exception):
    """The pickle asks for something other than arrays and plain containers."""


def read_pickle(path: Path, file: BinaryIO | None = None) -> Any:
    """The content of a pickle: NumPy arrays, numbers, text, bytes, and dicts, lists and tuples of them.

    With ``file``, the pickle is read from there, and ``path`` is only its name in messages. Raises UserError if the
    pickle is damaged or too large, or if it asks for anything else, which could run code.
    """
    try:
        if file is not None:
            return _load(file)
        check_regular(path, _MAX_FILE_BYTES)
        with path.open("rb") as opened:
            return _load(opened)
    except _UnsafePickle as error:
        raise UserError(
            f"{path}: {error}; a pickle may hold arrays, lists, dicts, text and numbers alone, as anything else could "
            f"run a program. Nothing of it was run: get the file from a source you trust"
        ) from None
    except Exception as error:  # damaged pickles make the unpickler raise errors of any kind
        raise UserError(f"{path}: not a whole pickle of arrays ({error}); copy or download it again") from error


def _load(file: BinaryIO) -> Any:
    """The content, after checking its size: the unpickler allocates memory for memo indices up to the highest one."""
    budget = _ItemBudget()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        budget.spend()
        if opcode.name.endswith("PUT") and not 0 <= int(argument or 0) <= count:
            raise _UnsafePickle(f"it has memo index {argument} after {count} opcodes")
    file.seek(0)
    return _replace_stand_ins(_RestrictedUnpickler(file, encoding="latin1").load(), _ItemBudget())


class _ItemBudget:
    """Limits the items of a pickle, each counted as often as it is used: two uses at each of 40 levels make 2^40."""

    def __init__(self) -> None:
        self.left = _MAX_ITEMS

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _UnsafePickle(f"it holds more than {_MAX_ITEMS} items")


class _RestrictedUnpickler(pickle.Unpickler):
    """Resolves the names in `_ALLOWED_NAMES` and no other."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) in _ALLOWED_NAMES:
            return _ALLOWED_NAMES[module, name]
        raise _UnsafePickle(f"it asks for {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise _UnsafePickle("it asks for an object outside the file")


class _DtypeStandIn:
    """Stands in for numpy.dtype."""

    __slots__ = ("big_endian", "dtype")

    def __init__(self, code: str, *_: object) -> None:
        self.dtype, self.big_endian = np.dtype(str(code)), False
        if self.dtype.kind not in _PLAIN_KINDS or self.dtype.hasobject:
            raise _UnsafePickle(f"it has an array of type {code}")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.big_endian = state[1] == ">"

    def array(self, content: str | bytes) -> np.ndarray:
        content = content.encode("latin1") if isinstance(content, str) else content  # Python 2 pickled bytes as text
        return np.frombuffer(content, self.dtype.newbyteorder(">" if self.big_endian else "<"))


class _ArrayStandIn:
    """Stands in for numpy.ndarray and numpy.core.multiarray._reconstruct."""

    __slots__ = ("array",)

    def __init__(self, *_: object) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, content = state[-4:]
        self.array = dtype.array(content).reshape(shape, order="F" if fortran else "C")


class _BufferStandIn:
    """Stands in for numpy.core.numeric._frombuffer, which protocol 5 makes arrays with."""

    __slots__ = ("array",)

    def __init__(self, content: bytes, dtype: _DtypeStandIn, shape: tuple[int, ...], order: str) -> None:
        self.array = dtype.array(content).reshape(shape, order="F" if order == "F" else "C")


class _ScalarStandIn:
    """Stands in for numpy.core.multiarray.scalar."""

    __slots__ = ("array",)

    def __init__(self, dtype: _DtypeStandIn, content: str | bytes) -> None:
        self.array = dtype.array(content)[0].item()


class _EncodeStandIn:
    """Stands in for _codecs.encode: old protocols write bytes as text."""

    def __new__(cls, text: str, encoding: str = "latin1") -> bytes:
        return text.encode("latin1")


_ALLOWED_NAMES: dict[tuple[str, str], type] = {
    ("numpy", "dtype"): _DtypeStandIn,
    ("numpy", "ndarray"): _ArrayStandIn,
    ("_codecs", "encode"): _EncodeStandIn,
}
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _ALLOWED_NAMES[f"{_core}.multiarray", "_reconstruct"] = _ArrayStandIn
    _ALLOWED_NAMES[f"{_core}.multiarray", "scalar"] = _ScalarStandIn
    _ALLOWED_NAMES[f"{_core}.numeric", "_frombuffer"] = _BufferStandIn


def _replace_stand_ins(value: Any, budget: _ItemBudget) -> Any:
    """The value with stand-ins replaced by the arrays they hold, in all containers."""
    budget.spend()
    match value:
        case _ArrayStandIn() | _BufferStandIn() | _ScalarStandIn():
            return value.array
        case dict():
            return {key: _replace_stand_ins(item, budget) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_replace_stand_ins(item, budget) for item in value)
    return value
