"""Check a module on its first input: a call must read the given parameters, and must depend on nothing else.

The check runs the module twice on one task's examples, without gradients and outside all transforms. It finds whatever
the search of `hidden_tensors` cannot see, such as a copy in C++ or a counter.
"""

# torch has no public names for its transforms, and its modes have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

import math
import numbers
import random
import weakref
from collections.abc import Callable, Iterable, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from ..torch_fixes.grad_levels import outside_transforms
from ..torch_fixes.support_statistics import own_statistics
from ..tree import map_leaves
from ..types import Params
from .hidden_tensors import METHOD, places, reached, storage

functorch: Any = cast(Any, torch._C)._functorch
DIFFERS = "a second call with the same input gives other numbers"
CHANGED = "each call changes {}"
LARGEST_STATE = 1000  # numbers of an array that is compared
GENERATORS = (
    "a call draws from a generator of Python or NumPy, or from its own; draw before, and give it as a part of x"
)
CHANGES = "a call changes {} in place; write it without: h = h + 1, not h += 1 or inplace=True"
KEEPS = "a call reads {}, which an earlier call computed from its own parameters or input; compute it in each call"
STATELESS = (
    "a call must depend on its input and its parameters alone: compute such a state before, and give it as a part "
    "of x; for norms of torch.nn see fmaml.running_statistics"
)


def one_task(tree: Any) -> Any:
    """The first task's tensors, outside all transforms: plain, without derivatives."""
    return map_leaves(untransformed, tree)


def untransformed(x: Tensor) -> Tensor:
    if functorch.is_batchedtensor(x):
        return untransformed(functorch.get_unwrapped(x)).select(functorch.maybe_get_bdim(x), 0)
    if functorch.is_gradtrackingtensor(x):
        return untransformed(functorch.get_unwrapped(x))
    return x.detach()


def can_be_tried(tensors: Iterable[Any]) -> bool:
    """Whether the tensors have numbers, and nobody watches the operations on them."""
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return False
    kinds = (Tensor, nn.Parameter)
    return all(not x.is_meta and type(unwrapped(x)) in kinds for x in tensors if isinstance(x, Tensor))


def unwrapped(x: Tensor) -> Tensor:
    return torch.func.debug_unwrap(x)


class Reads(TorchDispatchMode):
    """Record which of some tensors are read by an operation, also through their views.

    ``watched`` are names by address. ``derived`` holds the given tensors and all results that depend on their numbers.
    """

    def __init__(self, watched: dict[int, str], given: Iterable[Any] = (), held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.watched, self.found = watched, set[str]()
        self.held = list(held)  # so that no address of a freed tensor is used again
        self.derived = {storage(x): x for x in given if isinstance(x, Tensor)}  # held, so that no address is used again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = {storage(x) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)} - {0}
        self.found |= {self.watched[address] for address in read & self.watched.keys()}
        result = func(*args, **(kwargs or {}))
        if read & self.derived.keys() and not of_shape_alone(func):
            self.derived |= {storage(x): x for x in pytree.tree_leaves(result) if isinstance(x, Tensor)}
        return result

    def kept(self) -> dict[int, torch.UntypedStorage]:
        """The memory of derived tensors that somebody else holds as well, by address."""
        references = {address: StorageWeakRef(x.untyped_storage()) for address, x in self.derived.items() if address}
        self.derived = {}
        held = {a: torch.UntypedStorage._new_with_weak_ptr(ref.cdata) for a, ref in references.items()}
        return {address: memory for address, memory in held.items() if memory is not None}


def of_shape_alone(operation: Any) -> bool:
    """Whether an operation uses a tensor only for its shape and type, such as ``zeros_like``."""
    name = operation.overloadpacket.__name__
    return name.startswith("new_") or name.endswith("_like")


class Trial:
    """The check of a copied module on its first input.

    ``learnt`` are the names of its learnt parameters, ``kept`` the results that it kept from before the copy.
    """

    def __init__(self, module: nn.Module, original: nn.Module, learnt: Iterable[str], kept: Params) -> None:
        self.module, self.learnt, self.kept, self.done = module, tuple(learnt), kept, False
        self.original = weakref.WeakValueDictionary(dict(original.named_parameters()))
        self.found = ""  # the problem, since a second trial may not see it again

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "original": {}}  # another process has no original

    def stale(self) -> dict[int, str]:
        """The memory of the learnt parameters before a task changes them, and of results of these: name by address."""
        learnt = [(name, dict(self.module.named_parameters())[name]) for name in self.learnt]
        learnt += [(name, self.original[name]) for name in self.learnt if name in self.original]
        return {storage(tensor): name for name, tensor in (*learnt, *self.kept.items())}

    def __call__(self, call: Callable[[Any, Any], Any], params: Any, x: Any) -> None:
        """ValueError if ``call(params, x)`` reads a stale parameter, or differs from call to call."""
        if self.done or not can_be_tried(pytree.tree_leaves((params, x))):
            return
        with outside_transforms(), torch.no_grad(), own_statistics():
            try:
                self.found = self.found or self.problem(call, *cloned(one_task((params, x))))
            except ValueError:
                raise
            except Exception:  # the call itself will raise it
                return
        if self.found:
            raise ValueError(f"from_module({type(self.module).__name__}): {self.found}")
        self.done = True

    def problem(self, call: Callable[[Any, Any], Any], params: Any, x: Any) -> str:
        again = cloned((params, x))
        given = pytree.tree_leaves((params, x))
        drawn, versions = generators(self.module), changes(given)
        held = list(self.original.values())  # before their addresses are taken
        with Reads(self.stale(), given, held) as reads:
            first = call(params, x)
        if reads.found:
            return f"its forward pass reads {min(reads.found)} as it was before a task changes it; {METHOD} there"
        if changes(given) != versions:
            names = [name for name, version in zip(params, versions, strict=False) if params[name]._version != version]
            return CHANGES.format(names[0] if names else "its input")
        between, drawn_between = state(self.module), generators(self.module)
        kept, named = reads.kept(), {storage(place.value): place.path for place in places(self.module)}
        with Reads({address: named.get(address, "a result") for address in kept}) as reads_again:
            second = call(*again)
        if not same(first, second):
            return f"{DIFFERS}; {STATELESS}"
        if reads_again.found:
            return KEEPS.format(min(reads_again.found))
        if drawn != drawn_between and drawn_between != generators(self.module):
            return GENERATORS
        after = state(self.module)
        for name, value in between.items():  # the first call may fill a cache
            if name in after and repr(after[name]) != repr(value):
                return f"{CHANGED.format(name)}; {STATELESS}"
        return ""


def cloned(tree: Any) -> Any:
    return map_leaves(Tensor.clone, tree)


def changes(tensors: Iterable[Any]) -> list[int]:
    """How often each tensor was changed in place."""
    return [x._version for x in tensors if isinstance(x, Tensor)]


def generators(module: nn.Module) -> list[str]:
    """The states of the generators of random numbers that a module may draw from, except those of torch itself."""
    own = [value for layer in module.modules() for value in vars(layer).values()]
    states: list[Any] = [random.getstate(), np.random.get_state(legacy=False)]
    states += [value.getstate() for value in own if isinstance(value, random.Random)]
    states += [value.bit_generator.state for value in own if isinstance(value, np.random.Generator)]
    states += [value.get_state(legacy=False) for value in own if isinstance(value, np.random.RandomState)]
    states += [value.get_state().tolist() for value in own if isinstance(value, torch.Generator)]
    return [repr(state) for state in states]


def state(module: nn.Module) -> dict[str, Any]:
    """The values that a module reaches, by place: numbers, texts and small arrays, and the lengths of containers.

    A hook may log to a list: its length is left out.
    """
    found: dict[str, Any] = {}
    for path, value, _, _ in reached(module):
        if isinstance(value, str | numbers.Number | np.generic):
            found[path] = value
        elif isinstance(value, Tensor | np.ndarray):
            if math.prod(value.shape) <= LARGEST_STATE and has_numbers(value):
                found[path] = cast(Any, value).tolist()
        elif isinstance(value, Sized) and " hook" not in path:
            found[f"len({path})"] = len(value)
    return found


def has_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (value.layout is torch.strided and not value.is_meta)


def same(first: Any, second: Any) -> bool:
    """Whether two results have the same numbers but for rounding."""
    pairs = zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True)
    return all(close(a, b) for a, b in pairs if isinstance(a, Tensor))


def close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    largest = float(a.abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
