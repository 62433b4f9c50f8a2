"""A named component with its options: in a recipe a name, or a flat mapping with a `kind`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    InitErrorDetails,
    PydanticCustomError,
    core_schema,
)

from softprompts.registry import Entry, Registry

_OWN = frozenset({"constraint", "unknown_key", "unknown_name"})
"""Types of the findings that are ours, which pydantic does not know."""


class Component(BaseModel):
    """A component's registry name and its options.

    Example:
        >>> Component(kind="residual", bottleneck=400).model_dump()
        {'kind': 'residual', 'bottleneck': 400}
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """The options by name, without `kind`."""
        return dict(self.model_extra or {})


if TYPE_CHECKING:
    ComponentField = Any
    """What a field takes, a name, a mapping or a `Component`, is not what then stands in it."""
else:
    ComponentField = Component


@dataclass(frozen=True)
class ComponentOf:
    """Pydantic metadata: the field holds a component of `registry`.

    A mapping that names no kind has the `default` one, or must name one where that is "".
    """

    registry: Registry[Any]
    default: str = ""

    def build(self, value: Any) -> Component:
        """Return the component that `value` describes, with every option filled in.

        What is raised has one finding per wrong or unknown option.
        """
        if isinstance(value, Component):
            value = value.model_dump()
        if isinstance(value, str):
            value = {"kind": self._known(value, ())}
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "constraint", "wrong type", {"constraint": "a name or a mapping with a `kind`"}
            )
        options = dict(value)
        kind = options.pop("kind", None) or self.default
        if not kind:
            raise _failure([InitErrorDetails(type="missing", loc=("kind",), input=value)])
        entry = self.registry.entry(self._known(kind, ("kind",)))
        return Component(kind=entry.name, **check_options(entry, options, also="kind"))

    def _known(self, kind: Any, location: tuple[str, ...]) -> str:
        if not isinstance(kind, str):
            raise _failure([InitErrorDetails(type="string_type", loc=location, input=kind)])
        if kind not in self.registry:
            names = list(self.registry.names())
            problem = PydanticCustomError("unknown_name", "unknown name", {"known": names})
            raise _failure([InitErrorDetails(type=problem, loc=location, input=kind)])
        return kind

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.build,
            serialization=core_schema.plain_serializer_function_ser_schema(Component.model_dump),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        choices: list[JsonSchemaValue] = [{"enum": list(self.registry.names()), "type": "string"}]
        for entry in self.registry:
            choice = entry.schema.model_json_schema()
            choice["title"] = entry.name
            if entry.summary:
                choice["description"] = entry.summary
            choice["properties"] = {"kind": {"const": entry.name}, **choice.get("properties", {})}
            choices.append(choice)
        return {"anyOf": choices}


def check_options(entry: Entry, options: Mapping[str, Any], also: str = "") -> dict[str, Any]:
    """Return the options of `entry` with defaults filled in.

    The options pass through JSON, where a list may become a tuple but `"3"` or `true` never becomes
    a number. What is raised has one finding per wrong or unknown option. `also` names one more key
    that may stand beside the options, for the list of known keys.
    """
    findings: list[InitErrorDetails] = []
    known = {}
    for name, value in options.items():
        if name not in entry.options:
            names = [*([also] if also else []), *entry.options]
            problem = PydanticCustomError("unknown_key", "unknown key", {"known": names})
            findings.append(InitErrorDetails(type=problem, loc=(str(name),), input=value))
        elif isinstance(value, float) and not math.isfinite(value):
            findings.append(InitErrorDetails(type="finite_number", loc=(name,), input=value))
        else:
            known[name] = value
    try:
        checked = entry.schema.model_validate_json(json.dumps(known, default=str), strict=True)
    except ValidationError as error:
        lost = {item["loc"][0] for item in findings}
        findings.extend(
            _again(item)
            for item in error.errors(include_url=False)
            if item["type"] != "missing" or item["loc"][0] not in lost
        )
        raise _failure(findings) from None
    if findings:
        raise _failure(findings)
    return checked.model_dump(mode="json")


def _failure(findings: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("component", findings)


def _again(found: ErrorDetails) -> InitErrorDetails:
    """Return a finding in the form that a new error is made of."""
    kind: Any = found["type"]
    details = InitErrorDetails(type=kind, loc=found["loc"], input=found["input"])
    if kind in _OWN:  # a component among the options has said it
        details["type"] = PydanticCustomError(kind, found["msg"], found.get("ctx"))
    elif "ctx" in found:
        details["ctx"] = found["ctx"]
    return details
