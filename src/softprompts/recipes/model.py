"""The base of every part of a recipe: frozen, strict, and with errors of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from softprompts.errors import RecipeError
from softprompts.problems import describe

if TYPE_CHECKING:  # pydantic's metaclass has no public name, but is the type of its models
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Reporting(ModelMetaclass):
    """Turns what pydantic finds in a direct call into a `RecipeError`.

    Pydantic itself builds nested parts without calling the class, so a recipe that is checked as a
    whole still reports every problem with its full path.
    """

    def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805 (a metaclass)
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            found = describe(error, values, cast("type[BaseModel]", cls))
            raise RecipeError([problem.text for problem in found], cls.__name__) from None


class Section(BaseModel, metaclass=_Reporting):
    """A part of a recipe: nothing is converted, unknown keys are errors, nothing can be changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
    )
