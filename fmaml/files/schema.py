"""Schemas of the files that are read back. Anybody can have written such a file, so it is checked whole."""

from typing import Annotated, Any, Self, TypeAlias

from annotated_types import Ge, Le, MaxLen
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

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


class MetricsRow(Schema):
    """A row of metrics.jsonl."""

    step: Whole
    kind: Text | None = None
    seconds: Number | None = None
    before: Number | None = None
    after: Number | None = None
    score: Number | None = None
    ci95: Number | None = None
    tasks_per_second: Number | None = None


class ScoresRow(Schema):
    """A row of scores.jsonl: the scores of a range of tasks after each inner step, null if not finite."""

    column: Text
    first: Whole
    end: Whole
    scores: list[list[Number | None]]

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        """Refuse scores that are not one row for each task, all of one length."""
        if len(self.scores) != self.end - self.first or len({len(row) for row in self.scores}) != 1:
            raise ValueError("the scores are not one row for each task")
        return self
