"""Read NumPy arrays from pickles without running code from them.

A pickle is a program: it names functions and calls them with any arguments. Pickled arrays need a few names of NumPy.
Here these names stand for the functions below, and any other name is refused before it is called. So a pickle reaches
no class and no function of a library. Together they return only about as many bytes as the pickle has, because a pickle
can name the same bytes many times. Reads pickles of Python 2 and 3, of every protocol.
"""

import pickle
import pickletools
import re
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ...errors import Error
from ...files.regular import check_regular

_MAX_OPCODES = 300_000  # of a pickle; CIFAR-100 has 260,000
_MAX_FILE_BYTES = 2_000_000_000  # the largest cache of mini-ImageNet has 813 million
_PLAIN_DTYPE = re.compile(r"[<>|=]?[?biufSU]\d{0,9}")  # codes of numbers and text, as opposed to references to objects


def read_pickle(path: Path, file: BinaryIO | None = None) -> Any:
    """Read a pickle of NumPy arrays, numbers, text, bytes, and lists, tuples and dicts of them.

    With ``file``, the pickle is read from there, and ``path`` is only its name in messages. A list may contain itself,
    or another list many times, so iterate only over lists that should be flat. Raises Error if the pickle is damaged or
    too large, or has anything else in it.
    """
    try:
        if file is not None:
            return _load(file)
        check_regular(path, _MAX_FILE_BYTES)
        with path.open("rb") as opened:
            return _load(opened)
    except Exception as error:  # damaged pickles make the unpickler raise errors of any kind
        raise Error(
            f"{path}: not a complete pickle of only arrays, lists, dicts, text and numbers ({error}). "
            f"None of its code was run; copy or download it again from a source you trust"
        ) from error


def _load(file: BinaryIO) -> Any:
    for count, (opcode, _, _) in enumerate(pickletools.genops(file)):  # also finds lengths beyond the file's end
        if count == _MAX_OPCODES or opcode.name in ("EMPTY_SET", "FROZENSET"):
            raise ValueError(f"it has more than {_MAX_OPCODES} items" if count == _MAX_OPCODES else "it has a set")
    unpickler = _Unpickler(file, encoding="latin1")
    unpickler.bytes_left = 2 * file.tell()  # bytes written as text count twice: when encoded, and in their array
    file.seek(0)
    return unpickler.load()


class _TextDict(dict[str, Any]):
    """A dict with only text as keys: hashing nested tuples may take for ever."""

    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, str):
            raise ValueError(f"it has a key of type {type(key).__name__}")
        super().__setitem__(key, value)


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportPrivateUsage]
    """The unpickler written in Python, because its opcodes can be replaced."""

    append: Any  # these three belong to the class above
    pop_mark: Any
    stack: list[Any]
    bytes_left = 0  # that the functions below may still return

    def find_class(self, module: str, name: str) -> Any:
        place = module.replace("numpy._core", "numpy.core")  # NumPy 2 renamed it
        if (place, name) not in _FUNCTIONS:
            raise ValueError(f"it asks for {module}.{name}")
        return partial(function, self) if (function := _FUNCTIONS[place, name]) else None

    def encode(self, content: str | bytes, *_: object) -> bytes:
        self.bytes_left -= len(content)
        if self.bytes_left < 0:
            raise ValueError("it names the same bytes many times")
        return content.encode("latin1") if isinstance(content, str) else content

    def start_dict(self) -> None:
        self.append(_TextDict())

    def start_dict_after_mark(self) -> None:
        if self.pop_mark():
            raise ValueError("it has a dict that begins with items, which pickle never writes")
        self.start_dict()

    def set_state(self) -> None:
        state, changed = self.stack.pop(), self.stack[-1]
        set_state = changed.__setstate__
        if isinstance(changed, np.dtype):  # the only state of numbers and text is their byte order
            state = (3, state[1], None, None, None, changed.itemsize, changed.alignment, 0)
        elif not isinstance(changed, np.ndarray) or changed.size:
            raise ValueError(f"it sets the state of a {type(changed).__name__}")
        else:
            state = (*state[:-1], self.encode(state[-1]))
        set_state(state)  # NumPy checks that an array's bytes fit its shape

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # pyright: ignore[reportPrivateUsage]
        pickle.EMPTY_DICT[0]: start_dict,
        pickle.DICT[0]: start_dict_after_mark,
        pickle.BUILD[0]: set_state,
    }


def _dtype(_: _Unpickler, code: str, *flags: object) -> np.dtype[Any]:
    if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
        raise ValueError(f"it has an array of type {code[:20] if isinstance(code, str) else type(code).__name__}")
    return np.dtype(code, copy=True)


def _new_array(*_: object) -> np.ndarray:
    return np.empty(0, np.uint8)


def _from_buffer(
    unpickler: _Unpickler, content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: str
) -> np.ndarray:
    return np.frombuffer(unpickler.encode(content), dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(unpickler: _Unpickler, dtype: np.dtype[Any], content: str | bytes) -> Any:
    return np.frombuffer(unpickler.encode(content), dtype)[0].item()


_FUNCTIONS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,  # an argument of the next function
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,  # in protocol 5
    ("_codecs", "encode"): _Unpickler.encode,  # old protocols write bytes as text
}
