"""Schemas of the files that are read back. Anybody can have written such a file, so it is checked whole."""

from typing import Annotated, Any, Self, TypeAlias

from annotated_types import Ge, Le, MaxLen
from pydantic import BaseModel, ConfigDict, ValidationError

Whole: TypeAlias = Annotated[int, Ge(0), Le(10**9 - 1)]
Number: TypeAlias = Annotated[float, Ge(-1e300), Le(1e300)]  # a larger one overflows when it is formatted or drawn
Text: TypeAlias = Annotated[str, MaxLen(10_000)]


class Schema(BaseModel):
    """The entries of a JSON object: of exactly these types, finite, and within these limits. Others are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    @classmethod
    def checked(cls, content: Any) -> Self:
        """The checked entries; ValueError, with the first wrong one in a line."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))[:100]
            raise ValueError(f"{place}: {first['msg']}") from None
