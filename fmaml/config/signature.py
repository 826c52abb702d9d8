"""The settings that a function or a dataclass takes: their types, defaults and marks.

A function's settings are read from its source text, without importing it. So `fmaml show` and messages about mistakes
need not wait for torch, which takes more than a second to import, and run no outside code. The dataclasses of
`fmaml.config.settings` import no torch and are inspected directly.
"""

import ast
import copy
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypeAlias, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MaxLen

from .. import setting_types
from ..errors import Error
from ..setting_types import IMPLIED, TRAITS, Mark, Meaning

TypeForm: TypeAlias = Any  # the value of an annotation: a class, a union, a Literal, an Annotated

RANGES_AND_MARKS = {
    name: value
    for name, value in vars(setting_types).items()
    if get_origin(value) in (Annotated, Literal) or isinstance(value, Mark)
}
ANNOTATION_NAMES: dict[str, TypeForm] = {  # the names that the annotation of a setting may use
    **{kind.__name__: kind for kind in (int, float, str, bool, list, tuple, dict, Sequence, Ge, Gt, Le, Lt, Meaning)},
    **{"Literal": Literal, "Annotated": Annotated, "Optional": Optional, "Union": Union},
    **RANGES_AND_MARKS,
}
SUPPLIED_BY_RUN = {"seed", "device", "inputs", "outputs", "loss_fn", "apply"}  # parameters that are not settings
REQUIRED = object()  # marks a setting without a default
ONLY_IN_CODE = object()  # the type of a parameter that no setting can supply
SIMPLE_TYPES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    dict: "a mapping",
}


class ValueDescription(NamedTuple):
    """In an Annotated: the description of the values in messages, instead of one derived from the type."""

    text: str


class Setting(NamedTuple):
    """One key of a section."""

    type: TypeForm  # without marks
    default: Any = REQUIRED
    marks: frozenset[Mark] = frozenset()


@cache
def parse_file(path: Path) -> ast.Module:
    """The syntax tree of a Python file; Error if it cannot be read or parsed."""
    try:
        return ast.parse(path.read_bytes())
    except OSError as error:
        raise Error(f"{path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else f": {error}"
        raise Error(f"{path}{line}; correct the file") from None


def source_file(module: str) -> Path:
    """Find the source file of ``module``, in the current folder or installed, without importing it.

    Raises Error if there is none.
    """
    search, found = None, None
    for name in accumulate(module.split("."), lambda package, part: f"{package}.{part}"):
        loaded = sys.modules.get(name)  # a folder of the same name here must not replace fmaml itself
        found = loaded.__spec__ if loaded else find_spec(name, search)
        if found is None:
            raise Error(
                f"there is no module {name} in the current folder or installed; give package.module:function, without "
                f".py, and run the command in the folder that holds it"
            )
        search = found.submodule_search_locations or []
    if found is None or not found.has_location or not str(found.origin).endswith(".py"):
        raise Error(f"{module} has no Python source file to read settings from; give a module that has one")
    return Path(str(found.origin))


def find_spec(module: str, search: Sequence[str] | None) -> ModuleSpec | None:
    """The spec of a module in the folders ``search``. None searches the current folder, then installed packages.

    `importlib.util.find_spec` would import the parent packages.
    """
    here = PathFinder.find_spec(module, [""]) if search is None else None
    try:
        return here or next(filter(None, (finder.find_spec(module, search) for finder in sys.meta_path)), None)
    except KeyError:  # a folder without __init__.py, in a package that is not imported
        found = ModuleSpec(module, None, is_package=True)
        found.submodule_search_locations = [str(Path(place, module.rpartition(".")[2])) for place in search or ()]
        return found


def find_function(target: str) -> ast.FunctionDef:
    """The syntax tree of a function such as "fmaml.nn.conv4:conv4"; Error if there is none."""
    module, _, name = target.partition(":")
    path = source_file(module)
    functions = {node.name: node for node in parse_file(path).body if isinstance(node, ast.FunctionDef)}
    if name not in functions:
        known = f", such as {next(iter(functions))}" if functions else ""
        raise Error(f"{path} defines no function {name} at its top level; give one that it defines{known}")
    return functions[name]


def declared_traits(function: ast.FunctionDef, word: str) -> frozenset[str]:
    """The traits in a decorator ``@gives(...)`` or ``@needs(...)``, and those they imply; Error for a wrong one."""
    found: set[str] = set()
    for node in function.decorator_list:
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == word:
            for argument in [*node.args, *node.keywords]:
                trait = argument.value if isinstance(argument, ast.Constant) else None
                if trait not in TRAITS:
                    raise Error(
                        f"{function.name}(), line {node.lineno}: @{word} takes traits of the tasks, as text: "
                        f"{', '.join(TRAITS)}; {ast.unparse(argument)} is none of them"
                    )
                found |= {str(trait), IMPLIED.get(str(trait), str(trait))}
    return frozenset(found)


def module_docstring(target: str) -> str:
    """The docstring of the module in ``target``."""
    return ast.get_docstring(parse_file(source_file(target.partition(":")[0]))) or ""


def summary(documented: ast.FunctionDef | type) -> str:
    """The first line of the docstring."""
    text = ast.get_docstring(documented) if isinstance(documented, ast.FunctionDef) else documented.__doc__
    return (text or "").partition("\n")[0].replace("``", "")


def function_settings(function: ast.FunctionDef) -> dict[str, Setting]:
    """Name -> setting, for each parameter that the run does not supply, in the signature's order.

    Raises Error if an annotation or a default cannot be read from the source text.
    """
    found: dict[str, Setting] = {}
    for argument, default in _parameters(function.args):
        kind = _annotated_type(argument.annotation)
        if kind is ONLY_IN_CODE:
            wrong = (
                argument.annotation and f"its annotation {ast.unparse(argument.annotation)} is not that of a setting"
            )
            raise Error(
                f"{_place(function, argument)}: {wrong or 'it has no annotation, so no setting can be checked'}; "
                f"write it in int, str, or the words of fmaml.setting_types, without quotes and dots, such as "
                f"{corrected_signature(function)}"
            )
        found[argument.arg] = _setting(kind, REQUIRED if default is None else _literal(function, argument, default))
    return found


def corrected_signature(function: ast.FunctionDef) -> str:
    """The function's first line with an annotation for each setting, guessed from its default where it has none."""
    arguments = copy.deepcopy(function.args)
    for argument, default in _parameters(arguments):
        if _annotated_type(argument.annotation) is ONLY_IN_CODE:
            argument.annotation = ast.Name(_guessed_type(argument.annotation, default))
    return f"def {function.name}({ast.unparse(arguments)}):"


def _parameters(arguments: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    """The parameters that the run does not supply, each with its default."""
    defaults = [*[None] * (len(arguments.args) - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
    pairs = zip([*arguments.args, *arguments.kwonlyargs], defaults, strict=True)
    return [(argument, default) for argument, default in pairs if argument.arg not in SUPPLIED_BY_RUN]


def _guessed_type(annotation: ast.expr | None, default: ast.expr | None) -> str:
    """The annotation without quotes if it is that of a setting, else the type of the default."""
    if isinstance(annotation, ast.Constant) and annotation.value in ANNOTATION_NAMES:
        return str(annotation.value)
    value = default.value if isinstance(default, ast.Constant) else 0
    return "int | None" if value is None else type(value).__name__


def _literal(function: ast.FunctionDef, argument: ast.arg, default: ast.expr) -> Any:
    try:
        return ast.literal_eval(default)
    except ValueError:
        problem = f"its default {ast.unparse(default)} is computed, and signatures are read without running them"
        raise Error(f"{_place(function, argument)}: {problem}; write a literal, such as 5 or None") from None


def _place(function: ast.FunctionDef, argument: ast.arg) -> str:
    return f"{function.name}(), line {argument.lineno}, parameter {argument.arg}"


def dataclass_settings(settings: type) -> dict[str, Setting]:
    """Name -> setting, for each field of a dataclass."""
    kinds = get_type_hints(settings, include_extras=True)
    defaults = {field.name: REQUIRED if field.default is MISSING else field.default for field in fields(settings)}
    return {name: _setting(kinds[name], default) for name, default in defaults.items()}


def _setting(kind: TypeForm, default: Any) -> Setting:
    """The setting of an annotated type, with its marks separated from the type and its limits."""
    if get_origin(kind) is not Annotated:
        return Setting(kind, default)
    bare, *annotations = get_args(kind)
    marks = frozenset(annotation for annotation in annotations if isinstance(annotation, Mark))
    limits = tuple(annotation for annotation in annotations if not isinstance(annotation, Mark))
    return Setting(Annotated[bare, *limits] if limits else bare, default, marks)


def _annotated_type(node: ast.expr | None) -> TypeForm:
    """The type of an annotation, without the members of a union that only code can supply.

    ``float | Callable[..., Tensor]`` becomes ``float``, because `Callable` is not in `ANNOTATION_NAMES`.
    """
    if isinstance(node, ast.BinOp):
        sides = [_annotated_type(node.left), _annotated_type(node.right)]
        members = [kind for kind in sides if kind is not ONLY_IN_CODE]
        if len(members) == 2:
            return members[0] | members[1]
        return ONLY_IN_CODE if members in ([], [None]) else members[0]
    if node is None or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        return ONLY_IN_CODE
    try:
        kind = _value(node)
        hash(kind)
    except (KeyError, TypeError):
        return ONLY_IN_CODE
    return kind if kind is None or isinstance(kind, type) or get_origin(kind) else ONLY_IN_CODE


def _value(node: ast.expr) -> Any:
    """Evaluate an expression in an annotation without `eval`, which could run outside code.

    Raises KeyError for a name not in `ANNOTATION_NAMES`, TypeError for another kind of expression.
    """
    match node:
        case ast.Name(name):
            return ANNOTATION_NAMES[name]
        case ast.Constant(value):
            return value
        case ast.UnaryOp(ast.USub(), number):
            return -_value(number)
        case ast.Tuple(parts):
            return tuple(map(_value, parts))
        case ast.Subscript(generic, argument):
            return _value(generic)[_value(argument)]
        case ast.BinOp(left, ast.BitOr(), right):
            return _value(left) | _value(right)
        case ast.Call(function, arguments, []):
            return _value(function)(*map(_value, arguments))
        case _:
            raise TypeError(ast.unparse(node))


def describe_values(kind: TypeForm) -> str:
    """Describe the values of a type, for messages."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _describe_limited(describe_values(args[0]), args[1:])
    if origin is Literal:
        choices = ", ".join(map(str, args))
        return f"one of {choices}" if len(args) > 1 else choices
    if origin in (Union, UnionType):
        members = [describe_values(member) for member in args]
        separator = ", or " if any("," in member for member in members) else " or "
        return separator.join(members)
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)} in brackets, each {describe_values(args[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list in brackets, each {describe_values(args[0])}"
    return SIMPLE_TYPES.get(origin or kind, "a list")


def _describe_limited(values: str, limits: tuple[Any, ...]) -> str:
    described: list[str] = []
    for limit in limits:
        match limit:
            case ValueDescription(text):
                return text
            case Ge(bound):
                described.append(f"{bound} or more")
            case Gt(bound):
                described.append(f"above {bound}")
            case Le(bound):
                described.append(f"at most {bound}")
            case Lt(bound):
                described.append(f"below {bound}")
            case MaxLen(most):
                described.append(f"at most {most} of them")
    return f"{values}, {' and '.join(described)}" if described else values
