"""The settings that a function or a dataclass takes: their types, defaults and marks.

A function's are read from its source text, with no import, so that `fmaml show` and every message about a mistake come
at once, where importing torch alone takes more than a second. A dataclass of `fmaml.config.settings` imports no torch,
and is read as it is.
"""

import ast
import operator
from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import cache, reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from .. import ranges
from ..ranges import Mark

PACKAGE = Path(__file__).parent.parent
WORDS = {word.__name__: word for word in (int, float, str, bool, list, tuple, dict)} | {
    "Literal": Literal,
    "Annotated": Annotated,
    "Sequence": Sequence,
    **{
        name: word
        for name, word in vars(ranges).items()
        if get_origin(word) in (Annotated, Literal) or isinstance(word, Mark)
    },
}
SUPPLIED = {"seed", "device", "inputs", "outputs"}  # by the run, whatever the annotation
REQUIRED = object()  # the default of a setting that has none
ONLY_IN_CODE = object()  # the type of a parameter that no setting can spell


class InWords(NamedTuple):
    """In an Annotated: what its values are called."""

    text: str


class Setting(NamedTuple):
    """What one key of a section takes."""

    type: Any  # without marks
    default: Any = REQUIRED
    marks: frozenset[Mark] = frozenset()


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


def summary(documented: ast.FunctionDef | type) -> str:
    """The first line of the docstring."""
    text = ast.get_docstring(documented) if isinstance(documented, ast.FunctionDef) else documented.__doc__
    return (text or "").partition("\n")[0].replace("``", "")


def parameters(function: ast.FunctionDef) -> dict[str, Setting]:
    """Name -> setting, for each parameter that a YAML file can supply, in the signature's order."""
    named = function.args.args
    defaults = [None] * (len(named) - len(function.args.defaults)) + function.args.defaults
    pairs = [*zip(named, defaults, strict=True), *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)]
    found = {arg.arg: _parameter(arg, default) for arg, default in pairs if arg.arg not in SUPPLIED}
    return {name: setting for name, setting in found.items() if setting.type is not ONLY_IN_CODE}


def _parameter(arg: ast.arg, default: ast.expr | None) -> Setting:
    return _setting(_type(arg.annotation), REQUIRED if default is None else default)


def _setting(kind: Any, default: Any) -> Setting:
    if kind is ONLY_IN_CODE:
        return Setting(kind)
    kind, marks = without_marks(kind)
    return Setting(kind, ast.literal_eval(default) if isinstance(default, ast.expr) else default, marks)


def without_marks(kind: Any) -> tuple[Any, frozenset[Mark]]:
    """A type and the marks beside it."""
    if get_origin(kind) is not Annotated:
        return kind, frozenset()
    plain, *notes = get_args(kind)
    limits = tuple(note for note in notes if not isinstance(note, Mark))
    return Annotated[plain, *limits] if limits else plain, frozenset(note for note in notes if isinstance(note, Mark))


def fields_of(settings: type) -> dict[str, Setting]:
    """Name -> setting, for each field of a dataclass."""
    kinds = get_type_hints(settings, include_extras=True)
    defaults = {field.name: REQUIRED if field.default is MISSING else field.default for field in fields(settings)}
    return {name: _setting(kinds[name], default) for name, default in defaults.items()}


def _type(node: ast.expr | None) -> Any:
    """The type that an annotation spells, without those members of a union that only code can supply."""
    if node is None:
        return ONLY_IN_CODE
    if isinstance(node, ast.BinOp):
        members = [kind for kind in (_type(node.left), _type(node.right)) if kind is not ONLY_IN_CODE]
        return ONLY_IN_CODE if members in ([], [None]) else reduce(operator.or_, members)
    try:
        return eval(ast.unparse(node), {"__builtins__": {}}, WORDS)
    except NameError:
        return ONLY_IN_CODE


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
