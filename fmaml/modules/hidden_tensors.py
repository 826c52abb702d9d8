"""Find the parameters of a module that it reaches besides `nn.Module`: by lists, functions, hooks and objects.

`functional_call` puts a task's parameters into the slots that `nn.Module` registers. Any other way leads to the old
values. In a list or a dict the parameter is swapped as well. All other ways are refused, with the place.
"""

# hooks and the parts of functions have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

import contextlib
import copy
import dis
import sys
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from functools import partial
from io import IOBase
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..types import Params

REGISTERED = {"_parameters", "_buffers", "_non_persistent_buffers_set"}  # of each nn.Module
CLOSED = (str, bytes, int, float, complex, type(None), type, ModuleType, BuiltinFunctionType, torch.dtype, torch.device)
LIBRARIES = ("torch.", "numpy.", "fmaml.")  # their functions lead to no module by a global variable
CONTAINERS = ("types", "collections", "functools", "dataclasses")  # modules of Python with classes that hold values
NOTEBOOKS = ("IPython", "ipykernel")
CLONE = "a task changes only one of them; make it a clone(), or use the other in the forward pass"
ITERATOR = "is an iterator, which each call of next() changes; give the number of the call as a part of x"
METHOD = "put this code into a method of a class of nn.Module, and use self"
Places: TypeAlias = Sequence[tuple[Any, Any, str]]  # (list or dict, key, name of the parameter there)
Step: TypeAlias = tuple[str, Any, Any, Any]  # a place, the value there, the container that has it, and its key there


FOLLOWED = object()  # the holder of a registered submodule


class Place(NamedTuple):
    """A place besides the registered ones, and its value."""

    path: str
    value: Any
    holder: Any  # a list or a dict that has the value; None: another kind of container
    key: Any


def places(root: nn.Module, closed: Iterable[nn.Module] = ()) -> Iterator[Place]:
    """Each tensor and module that ``root`` reaches besides the registered ones."""
    for place in reached(root, closed):
        if isinstance(place.value, Tensor | np.ndarray) or (
            isinstance(place.value, nn.Module) and place.holder is not FOLLOWED
        ):
            yield place


def reached(root: nn.Module, closed: Iterable[nn.Module] = ()) -> Iterator[Place]:
    """Each value that ``root`` reaches by its variables, containers, hooks and functions.

    The search does not go into the modules ``closed``.
    """
    seen: set[int] = {id(root), *map(id, closed)}
    waiting: deque[tuple[str, Any]] = deque([("", root)])
    while waiting:
        path, value = waiting.popleft()
        for step, child, holder, key in led_to(value):
            name = f"{path}{step}".lstrip(".")
            yield Place(name, child, holder, key)
            if id(child) not in seen and not isinstance(child, CLOSED):
                seen.add(id(child))
                waiting.append((name, child))


def led_to(value: Any) -> Iterator[Step]:
    """The objects that the value leads to in one step."""
    if isinstance(value, nn.Module):
        yield from steps_of_module(value)
    elif isinstance(value, Mapping):
        holder = value if isinstance(value, MutableMapping) else None
        yield from ((f"[{key!r}]", child, holder, key) for key, child in list(cast(Any, value).items()))
    elif isinstance(value, list | tuple | set | frozenset | deque):
        holder = value if isinstance(value, MutableSequence) else None
        yield from ((f"[{key}]", child, holder, key) for key, child in enumerate(list(cast(Iterable[Any], value))))
    elif isinstance(value, FunctionType):
        yield from ((f" ({how})", child, None, None) for how, child in variables(value))
        yield from ((f".{key}", child, vars(value), key) for key, child in vars(value).items())
    elif isinstance(value, MethodType):
        yield from ((" (a method)", child, None, None) for child in (value.__func__, value.__self__))
    elif isinstance(value, partial):
        yield from ((" (a partial)", child, None, None) for child in (value.func, *value.args))
        yield from ((f" (a partial, {key})", child, value.keywords, key) for key, child in value.keywords.items())
    elif isinstance(value, weakref.ref):
        yield " (a weak reference)", cast(Any, value)(), None, None
    elif slots := [name for name in slots_of(value) if hasattr(value, name)]:
        yield from ((f".{name}", getattr(value, name), None, None) for name in slots)
    elif hasattr(value, "__dict__") and not isinstance(value, Tensor) and not is_of_python(value):
        yield from ((f".{key}", child, vars(value), key) for key, child in list(vars(value).items()))


def slots_of(value: Any) -> list[str]:
    """The names of the slots of an object, if all its variables are in slots."""
    if isinstance(value, Tensor | np.ndarray) or hasattr(value, "__dict__") or is_of_python(value):
        return []
    names = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
    return [name for slots in names for name in ([slots] if isinstance(slots, str) else slots)]


def is_of_python(value: Any) -> bool:
    """Whether an object belongs to Python or a notebook, such as a logger: it may lead to everything."""
    package = type(value).__module__.partition(".")[0]
    return package not in CONTAINERS and (package in sys.stdlib_module_names or package in NOTEBOOKS)


def steps_of_module(module: nn.Module) -> Iterator[Step]:
    """The objects in the variables of a module: submodules, hooks and all other attributes."""
    for key, child in list(vars(module).items()):
        if key == "_modules":
            yield from ((f".{name}", layer, FOLLOWED, None) for name, layer in child.items())
        elif key in REGISTERED or (isinstance(module, nn.RNNBase) and key.startswith("_flat_weight")):
            continue  # a recurrent layer renews its flat weights by itself
        elif "hooks" in key and isinstance(child, dict):
            kind = key.strip("_").removesuffix("s").replace("_", " ")
            yield from ((f", its {kind}", hook, None, None) for hook in cast(Any, child).values())
        else:
            yield f".{key}", child, vars(module), key
    for base in own_classes(type(module)):
        for key, child in list(vars(base).items()):
            if not key.startswith("__") and not hasattr(child, "__get__"):
                yield f".{key} (of the class {base.__name__})", child, None, None
    yield from ((f" (its method {f.__name__})", f, None, None) for f in methods_of_a_call(type(module)))


def own_classes(kind: type) -> list[type]:
    """The classes of a user among a class and its bases."""
    return [base for base in kind.__mro__[:-1] if not f"{base.__module__}.".startswith(LIBRARIES)]


def methods_of_a_call(kind: type) -> Iterator[FunctionType]:
    """The methods of a user's class that its forward pass may call: ``forward``, and those that it names."""
    own = own_classes(kind)
    waiting, seen = ["forward"], {"__init__"}
    while waiting:
        if (name := waiting.pop()) in seen:
            continue
        seen.add(name)
        for base in own:
            method = vars(base).get(name)
            method = method.fget if isinstance(method, property) else method
            if isinstance(method, FunctionType):
                yield method
                waiting.extend(method.__code__.co_names)


def variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The values that a function uses besides its arguments, each with a description."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"its variable {name}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield "a default value", value
    if not f"{function.__module__}.".startswith(LIBRARIES):
        for name in sorted(names_in(function.__code__) & function.__globals__.keys()):
            yield f"the global variable {name}", function.__globals__[name]


def names_in(code: CodeType) -> set[str]:
    """The names of global variables in the code of a function and of those within it."""
    inner = [names_in(part) for part in code.co_consts if isinstance(part, CodeType)]
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*inner)


def storage(tensor: Any) -> int:
    """The address of the memory of a tensor or an array, which its views share; 0 if it has none."""
    try:
        if isinstance(tensor, np.ndarray):
            return tensor.ctypes.data
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a sparse tensor, or one within a transform
        return 0


class Aliases(NamedTuple):
    """The other places of learnt parameters."""

    swapped: list[tuple[Any, Any, str]]  # (list or dict, key, name of the parameter): a call swaps them as well
    refused: list[str]  # messages about all others


def aliases(copied: nn.Module, original: nn.Module, learnt: Sequence[str]) -> Aliases:
    """The other places where a copy of a module reaches learnt parameters: its own, or those of the original."""
    found = Aliases([], [])
    own, old = dict(copied.named_parameters()), dict(original.named_parameters())
    names = {id(p[name]): name for p in (own, old) for name in learnt}
    memory = {storage(old[name]): name for name in learnt}
    of_old = {id(old[name]) for name in learnt}
    closed = [layer for layer in original.modules() if of_old & set(map(id, layer.parameters()))]
    leading = set(map(id, closed))
    for path, value, holder, key in places(copied, closed):
        if id(value) in leading:
            found.refused.append(f"{path}: leads to the module itself, not to the copy of a task; {METHOD}")
        elif id(value) in names and id(value) not in of_old and holder is not None:
            found.swapped.append((holder, key, names[id(value)]))
        elif id(value) in names:
            found.refused.append(f"{path}: is {names[id(value)]} before a task changes it; {METHOD}")
    found.refused.extend(f"{a}: shares memory with {b}; {CLONE}" for a, b in overlaps(original, learnt))
    found.refused.extend(f"{path}: {ITERATOR}" for path in iterators(original))
    for path, value, _, _ in places(original):
        if not isinstance(value, nn.Module) and id(value) not in names and (name := memory.get(storage(value))):
            found.refused.append(f"{path}: is a view of {name} before a task changes it; {METHOD}")
    return found


def iterators(module: nn.Module) -> Iterator[str]:
    """The places of iterators that a module reaches."""
    for place in reached(module):
        if isinstance(place.value, Iterator) and not isinstance(place.value, IOBase):
            yield place.path


def overlaps(module: nn.Module, learnt: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The names of registered tensors that share numbers with a learnt parameter, and its name."""
    named = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    at: dict[int, list[str]] = {}
    for name, tensor in named.items():
        at.setdefault(storage(tensor), []).append(name)
    at.pop(0, None)
    for names in at.values():
        for i, name in enumerate(names):
            for other in names[i + 1 :]:
                a, b = extent(named[name]), extent(named[other])
                if {name, other} & set(learnt) and a.start < b.stop and b.start < a.stop:
                    yield (name, other) if other in learnt else (other, name)


def extent(tensor: Tensor) -> range:
    """The bytes of its memory that a tensor covers."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.storage_offset() * tensor.element_size()
    return range(start, start + (last + 1) * tensor.element_size() if tensor.numel() else start)


@contextlib.contextmanager
def swapped(places: Places, weights: Params) -> Generator[None]:
    """Put the weights into lists and dicts as well, for the time of a call."""
    before = [holder[key] for holder, key, _ in places]
    for holder, key, name in places:
        holder[key] = weights[name]
    try:
        yield
    finally:
        for (holder, key, _), value in zip(places, before, strict=True):
            holder[key] = value


def copied_module(module: nn.Module) -> tuple[nn.Module, Params]:
    """A deep copy, and by place the results that the module kept from a call or a computation: only their values."""
    tensors = {place.path: place.value for place in places(module) if isinstance(place.value, Tensor)}
    kept = {path: tensor for path, tensor in tensors.items() if not tensor.is_leaf}
    memo: Any = {id(tensor): tensor.detach().clone() for tensor in kept.values()}
    try:
        copied = copy.deepcopy(module, dict(memo))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        parts = [
            f"{path}.{key}".lstrip(".") for path, layer in module.named_modules() for key in not_copied(layer, memo)
        ]
        raise ValueError(
            f"{type(module).__name__}: cannot be copied: {', '.join(parts) or 'the module'}: {error}; "
            f"make it within the forward pass, or write __deepcopy__"
        ) from error
    return copied, {path: memo[id(tensor)] for path, tensor in kept.items()}


def not_copied(layer: nn.Module, memo: Any) -> Iterator[str]:
    """The attributes of a layer that cannot be copied, besides its submodules."""
    for key, value in vars(layer).items():
        if key != "_modules":
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:
                yield key
