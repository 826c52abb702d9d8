"""The settings that a function or a dataclass takes: their types, defaults and marks.

A function's settings are read from its source text, see `fmaml.config.source_text`. The dataclasses of
`fmaml.config.settings` import no torch and are inspected directly.
"""

import ast
import copy
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from .. import setting_types
from ..errors import Error
from ..setting_types import Mark, Meaning
from .value_descriptions import TypeForm

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


class Setting(NamedTuple):
    """One key of a section."""

    type: TypeForm  # without marks
    default: Any = REQUIRED
    marks: frozenset[Mark] = frozenset()


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
