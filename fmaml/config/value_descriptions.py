"""Describe the values that a setting's type admits, in words for messages, help and pages."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen

TypeForm: TypeAlias = Any  # the value of an annotation: a class, a union, a Literal, an Annotated

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
