"""Turn errors of torch that no user can act on into a ValueError with the line, the rule and a cure that works.

Only errors that torch.func causes are explained; a mistake in the user's own code keeps its error.
"""

import contextlib
import linecache
import re
import sysconfig
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn

import torch

LIBRARY = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
PYTHON = sysconfig.get_path("stdlib")
LOOP = 'use batching="loop"'
STATE = "compute it before, and give it as a part of x"


class Explanation(NamedTuple):
    """An error of torch, and its explanation."""

    pattern: str  # a regular expression that the error's text matches
    reason: str  # may use the groups of the pattern
    cure: str
    within: str = ""  # a part of the name of a file of torch in which it is raised
    vmapped: bool | None = None  # whether it is meant for tasks that are vmapped, or for those that are not
    metric: bool | None = None  # whether it is meant for a metric, or for a loss


NUMPY = "call numpy|doesn't have storage|data pointer"
CHECKPOINT = (
    "torch.func cannot differentiate torch.utils.checkpoint",
    ("call the layer itself; the setting remat=True of the algorithm saves memory"),
)
NESTED = ("torch.func has no rule for nested tensors", "give padded sequences, and a mask of the values")
PLAIN = "write it in plain operations of torch"
EXPLANATIONS = [
    Explanation("setup_context staticmethod|saved tensor hooks", *CHECKPOINT, within="utils/checkpoint.py"),
    Explanation(
        "saved tensor hooks",
        "torch.func calls no hooks on saved tensors, as of save_on_cpu",
        "leave the hooks out; the setting remat=True of the algorithm saves memory",
    ),
    Explanation(
        "setup_context staticmethod",
        "torch.func does not call backward hooks of modules",
        "remove it, by .remove() of its handle",
        within="utils/hooks.py",
    ),
    Explanation(
        "setup_context staticmethod",
        "torch.func needs an autograd.Function without ctx in forward",
        "write forward(x) and setup_context(ctx, inputs, output), and set generate_vmap_rule = True",
    ),
    Explanation(
        "it does not have vmap support",
        "vmap cannot use this autograd.Function",
        f"set generate_vmap_rule = True in it, or {LOOP}",
    ),
    Explanation(
        r"scaled_dot_product_\w+_attention\w*_backward.* is not implemented",
        "fused attention has no second derivative",
        "call it within torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or use first_order=True",
    ),
    Explanation(
        r"derivative for '?(?:aten::)?_?(\w+?)_backward'? is not implemented",
        "{0} has no second derivative in torch",
        f"use first_order=True, or {PLAIN}",
    ),
    Explanation(
        r"derivative for '?(?:aten::)?_?(\w+)(?:: \w+)?'? is not implemented",
        "{0} has no derivative in torch by one of its arguments",
        f"{PLAIN}, or give it a constant there, by .detach()",
    ),
    Explanation(
        r"backward\(\) called inside a functorch transform",
        "torch.func takes no derivative by .backward() within a function",
        "return the loss without it; for a derivative in the loss use torch.func.grad(f)(x)",
    ),
    Explanation(
        "requires_grad_\\(\\)|does not require grad and does not have a grad_fn|appears to not have been used",
        "torch.func takes no derivative by autograd within a function",
        "use torch.func.grad(f)(x)",
    ),
    Explanation(
        "called random operation|randomness",
        "vmap does not draw random numbers",
        f"{LOOP}, or draw them before and give them as a part of x",
    ),
    Explanation(
        "doesn't have storage|data pointer|vmap",
        "torch.func does not see into packed sequences",
        "give padded sequences to the layer, and set the outputs beyond each length to 0",
        within="/rnn.py",
    ),
    Explanation(
        "call numpy|doesn't have storage|data pointer", "NumPy cannot read a task under vmap", LOOP, metric=True
    ),
    Explanation("call numpy|doesn't have storage|data pointer", "NumPy has no derivative", "compute it in torch"),
    Explanation("SparseCPU|SparseCUDA|[Ss]parse", "torch.func has no rule for sparse tensors", "{sparse}"),
    Explanation("[Ii]nference tensor", "a tensor of inference_mode has no derivative", "use torch.no_grad() instead"),
    Explanation(
        "leaf Variable that requires grad is being used in an in-place operation",
        "an operation in place changes a parameter",
        "write it without: w = w * 2, not w *= 2",
    ),
    Explanation(
        "has been modified by an inplace operation",
        "an operation in place changes numbers that a derivative needs",
        "write it without: h = h + 1, not h += 1 or h.add_(1)",
    ),
    Explanation(
        "in-place operation .* mutate a captured Tensor",
        "an operation in place changes a tensor from outside the function",
        f"write it without: h = h + 1, not h += 1. If it is a state, {STATE}",
    ),
    Explanation(
        "only Tensors of floating point dtype can require gradients",
        "theta has integers, such as the counter of a batch norm",
        "give dict(module.named_parameters()), not its state_dict()",
    ),
    *(
        Explanation(
            r"Target (-?\d+) is out of bounds|index (-?\d+) is out of bounds",
            "a label y is beyond the outputs: {0}",
            "number the classes of each task 0 .. ways - 1, as torch.unique(y, return_inverse=True)[1] does",
            within=file,
        )
        for file in ("nn/functional.py", "fmaml/losses.py")
    ),
    Explanation("NestedTensorImpl|_nested_tensor", *NESTED),
    Explanation("storage", *NESTED, within="nested/_internal"),
    Explanation(
        "storage",
        "torch.func cannot copy a layer within a call",
        "call the layer itself, or h.clone()",
        within="/copy.py",
    ),
    Explanation(
        "mutating directly with `.data`",
        "torch.func cannot change a module within a call",
        "change it before, such as by .double(), and convert h instead",
    ),
    Explanation(
        "False != True",
        "torch.func cannot call this compiled function",
        "give the function itself, and compile the call of meta_grad",
        within="_dynamo/",
    ),
    Explanation(
        "vmap|BatchedTensor|batching rule|memory_format|channels_last", "torch cannot vmap it", LOOP, vmapped=True
    ),
]
SPARSE = "write the product by torch.zeros_like(h).index_add(0, rows, h[columns])"


@contextlib.contextmanager
def with_cures(owner: str, vmapped: Callable[[], bool], metric: bool = False) -> Generator[None]:
    """Raise a ValueError in place of an error of torch that a rule explains.

    Args:
        owner: of the code, for the message.
        vmapped: whether the tasks are vmapped.
        metric: whether the code is a metric, without derivatives.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError, IndexError, TypeError, AssertionError) as error:
        raise_explained(error, owner, vmapped(), metric)


def raise_explained(error: Exception, owner: str, vmapped: bool, metric: bool) -> NoReturn:
    """Raise the explanation of an error; the error itself if there is none."""
    places = frames(error.__traceback__)
    if isinstance(error, TypeError) and "argument" in str(error):  # it lists names of arguments, such as sparse
        raise error
    for rule in EXPLANATIONS:
        found = re.search(rule.pattern, str(error))
        if not found or (rule.vmapped or vmapped) != vmapped or (rule.metric or metric) != metric:
            continue
        if any(rule.within in file for file, _ in places):
            groups = [group for group in found.groups() if group]
            cure = rule.cure.replace("{sparse}", SPARSE)
            raise ValueError(f"{owner}{line_of(places)}: {rule.reason.format(*groups)}; {cure}") from error
    raise error


def frames(traceback: TracebackType | None) -> list[tuple[str, int]]:
    """The file and line of each frame, outermost first."""
    found: list[tuple[str, int]] = []
    while traceback:
        found.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


def line_of(places: list[tuple[str, int]]) -> str:
    """The innermost line outside torch and this package, for a message; empty if there is none."""
    for file, line in reversed(places):
        if not file.startswith((*LIBRARY, "<")) and not (file.startswith(PYTHON) and "site-packages" not in file):
            return f", {Path(file).name}:{line}, {linecache.getline(file, line).strip()}"
    return ""
