"""The settings that a function takes, read from its signature.

It is read from the source text, with no import: so `fmaml show` and every message about a slip come at once,
where importing torch alone takes more than a second.
"""

import ast
import operator
from collections.abc import Sequence
from functools import cache, reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from .. import ranges

PACKAGE = Path(__file__).parent.parent
WORDS = {word.__name__: word for word in (int, float, str, bool, list, tuple, dict)} | {
    "Literal": Literal,
    "Annotated": Annotated,
    "Sequence": Sequence,
    **{name: word for name, word in vars(ranges).items() if get_origin(word) in (Annotated, Literal)},
}
GIVEN = {"seed", "device", "inputs", "outputs"}  # what the run supplies, whatever the annotation
REQUIRED = object()  # the default of a setting that has none
BY_CODE = object()  # the type of a parameter that no setting can spell


class InWords(NamedTuple):
    """In an Annotated: what its values are called."""

    text: str


class Setting(NamedTuple):
    type: Any
    default: Any = REQUIRED


@cache
def parsed(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))


def file_of(target: str, package: Path = PACKAGE) -> Path:
    """Where the function that ``target``, such as "fmaml.nn.models:conv4", names is written."""
    return package.joinpath(*target.partition(":")[0].split(".")[1:]).with_suffix(".py")


def definition(target: str, package: Path = PACKAGE) -> ast.FunctionDef:
    """The function that ``target`` names."""
    nodes = parsed(file_of(target, package)).body
    found = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    return found[target.partition(":")[2]]


def preface(target: str) -> str:
    """What the file says of itself before any code."""
    return ast.get_docstring(parsed(file_of(target))) or ""


def summary(target: str) -> str:
    """The first line of the function's docstring."""
    return (ast.get_docstring(definition(target)) or "").partition("\n")[0].replace("``", "")


def settings(function: ast.FunctionDef, keyword_only: bool = False) -> dict[str, Setting]:
    """Name -> type and default of each parameter that a YAML file can supply, in the signature's order."""
    named = function.args.args
    defaults = [None] * (len(named) - len(function.args.defaults)) + function.args.defaults
    pairs = [] if keyword_only else list(zip(named, defaults, strict=True))
    pairs += zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    found = {arg.arg: _setting(arg, default) for arg, default in pairs if arg.arg not in GIVEN}
    return {name: setting for name, setting in found.items() if setting.type is not BY_CODE}


def _setting(arg: ast.arg, default: ast.expr | None) -> Setting:
    kind = _type(arg.annotation)
    if kind is BY_CODE or default is None:
        return Setting(kind)
    return Setting(kind, ast.literal_eval(default))


def _type(node: ast.expr | None) -> Any:
    """The type that an annotation spells, without those members of a union that only code can supply."""
    if node is None:
        return BY_CODE
    if isinstance(node, ast.BinOp):
        members = [kind for kind in (_type(node.left), _type(node.right)) if kind is not BY_CODE]
        return BY_CODE if members in ([], [None]) else reduce(operator.or_, members)
    try:
        return eval(ast.unparse(node), {"__builtins__": {}}, WORDS)
    except NameError:
        return BY_CODE


def words(kind: Any) -> str:
    """The values that a type takes, in plain words."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _limited(words(args[0]), args[1:])
    if origin is Literal:
        return "one of " * (len(args) > 1) + ", ".join(map(str, args))
    if origin in (Union, UnionType):
        members = [words(member) for member in args]
        return (", or " if "," in "".join(members) else " or ").join(members)
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)} in brackets, each {words(args[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list in brackets, each {words(args[0])}"
    simple = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
    return simple.get(kind, "a mapping" if kind is dict or origin is dict else "a list")


def _limited(what: str, limits: tuple) -> str:
    said = []
    for limit in limits:
        match limit:
            case InWords(text):
                return text
            case Ge(bound):
                said.append(f"{bound} or more")
            case Gt(bound):
                said.append(f"above {bound}")
            case Le(bound):
                said.append(f"at most {bound}")
            case Lt(bound):
                said.append(f"below {bound}")
    return f"{what}, {' and '.join(said)}" if said else what
