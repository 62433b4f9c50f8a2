"""Registries: what exists under which name, known without importing torch.

A room keeps one `Registry` in its `registry.py`. An entry names where the component lives, so that
listing and validating stay fast, and says which options the component takes, so that a recipe can
be checked before anything heavy is loaded. Third parties add entries through the entry point group
`softprompts.<kind>`, such as `softprompts.active_length`; the entry point loads to an `Entry`, best
kept in a module of its own that does not import torch. A whole registry is added through the group
`softprompts.components`, a command through `softprompts.commands`.
"""

from __future__ import annotations

import difflib
import pkgutil
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from softprompts.entry_points import entry_points, load_point, wrong_target
from softprompts.errors import RegistryError, SoftPromptsWarning, UnknownNameError

T = TypeVar("T")

_ADDING = threading.Lock()

RATE_SUFFIX = "_rate_multiplier"
"""What the name of a learning rate ends with that is a multiple of that of rows."""


@dataclass(frozen=True)
class Option:
    """One option of a component: its type, default and constraint.

    Attributes:
        type: a type that pydantic understands.
        default: the value when a recipe is silent; `...` makes the option required.
        description: one line for `list --json` and the JSON Schema.
        constraints: keyword arguments of `pydantic.Field`, such as `ge=1`.
        is_late: whether the component had a release without it: a run where it has its default
            keeps the identity that it had then.
    """

    type: Any
    default: Any = ...
    description: str = ""
    constraints: Mapping[str, Any] = field(default_factory=dict)
    is_late: bool = False


@dataclass(frozen=True)
class Entry:
    """What a registry knows of one component.

    Attributes:
        name: kebab-case name used in recipes.
        target: `"module:attribute"` of the class or function.
        summary: one line.
        version: goes up when the component's numbers may change; part of a run's identity.
        options: what a recipe may set, by snake_case name.
        defaults: values for fields of `training` where a recipe is silent, by name; the multiplier
            of a group of parameters of its own as `<group>_rate_multiplier`.
        reference: the paper, when there is one.
        is_method: whether it is a method by itself, so that a recipe may name it as one; built-in
            ones alone.
        facts: what the class says of itself, where common recipes need it before torch is there.
    """

    name: str
    target: str
    summary: str = ""
    version: int = 1
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    is_method: bool = False
    facts: Mapping[str, bool] = field(default_factory=dict)

    @property
    def rate_multipliers(self) -> dict[str, float]:
        """Learning rates of its groups of parameters, as multiples of that of rows, by group."""
        rates = {k: v for k, v in self.defaults.items() if k.endswith(RATE_SUFFIX)}
        return {name.removesuffix(RATE_SUFFIX): float(rate) for name, rate in rates.items()}

    @cached_property
    def schema(self) -> type[BaseModel]:
        """The pydantic model of this component's options; unknown keys are errors."""
        fields: dict[str, Any] = {
            name: (
                option.type,
                Field(option.default, description=option.description, **option.constraints),
            )
            for name, option in self.options.items()
        }
        config = ConfigDict(extra="forbid", frozen=True)
        return create_model(f"{self.name}-options", __config__=config, **fields)

    def fact(self, name: str) -> Any:
        """Return what the class says of itself; it is imported where `facts` leaves that open."""
        return self.facts[name] if name in self.facts else getattr(self.load(), name)

    def load(self) -> Any:
        """Import and return the component."""
        return pkgutil.resolve_name(self.target)


class Registry(Generic[T]):
    """Components of one kind, by name.

    Args:
        kind: the kind, in the singular, as errors say it.
        base: `"module:attribute"` of the abstract base that every component must derive from, or
            `""` where components are functions.
    """

    def __init__(self, kind: str, base: str = "") -> None:
        self.kind = kind
        self.base = base
        self._entries: dict[str, Entry] = {}
        self._broken: list[str] = []
        self._has_plugins = False
        self._loading_threads: set[int] = set()

    @property
    def group(self) -> str:
        """The entry point group of third parties' components."""
        return f"softprompts.{self.kind.replace(' ', '_')}"

    def register(self, name: str, target: str, **about: Any) -> Entry:
        """Add an `Entry(name, target, **about)`, whose name must be free, and return it."""
        entry = Entry(name, target, **about)
        if taken := self._taken(entry, self._entries):
            raise RegistryError(taken)
        self._entries[entry.name] = entry
        return entry

    def names(self) -> tuple[str, ...]:
        """All names, built-in ones first; what of a third party does not load is left out."""
        self._load_plugins()
        return tuple(self._entries)

    def methods(self) -> tuple[Entry, ...]:
        """Built-in entries that are methods by themselves."""
        return tuple(entry for entry in self._entries.values() if entry.is_method)

    def __iter__(self) -> Iterator[Entry]:
        self._load_plugins()
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        self._load_plugins()
        return isinstance(name, str) and name in self._entries

    def entry(self, name: str) -> Entry:
        """Return the entry called `name`.

        Raises:
            UnknownNameError: if there is none; the text gives near names, the whole list, and
                what of a third party did not load.
        """
        self._load_plugins()
        if name not in self._entries:
            text = unknown_name(self.kind, name, self._entries)
            raise UnknownNameError(" ".join([text, *self._broken]))
        return self._entries[name]

    def load(self, name: str) -> T:
        """Import and return the component called `name`.

        Raises:
            UnknownNameError: if there is none.
            RegistryError: if it does not load, or not derive from the registry's base.
        """
        entry = self.entry(name)
        try:
            component = entry.load()
        except (AttributeError, ImportError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            text = f"{self.kind} {name!r} must load from {entry.target}, but that raises {reason}."
            raise RegistryError(text) from error
        if self.base:
            base = pkgutil.resolve_name(self.base)
            if not (isinstance(component, type) and issubclass(component, base)):
                raise RegistryError(
                    f"{self.kind} {name!r} must derive from {self.base}, but is {component!r}."
                )
        return component  # type: ignore[no-any-return]

    def _load_plugins(self) -> None:
        """Add what third parties have; of one that does not load, a warning says why, once.

        Nothing is locked while their modules are imported, for these may look here themselves, and
        then see what there is without them.
        """
        thread = threading.get_ident()
        if self._has_plugins or thread in self._loading_threads:
            return
        self._loading_threads.add(thread)
        try:
            found = [self._load_point(p) for p in entry_points().select(group=self.group)]
        finally:
            self._loading_threads.remove(thread)
        with _ADDING:
            if self._has_plugins:
                return
            entries = dict(self._entries)
            for entry in found:
                if isinstance(entry, str):
                    self._broken.append(entry)
                elif taken := self._taken(entry, entries):
                    self._broken.append(taken)
                else:
                    entries[entry.name] = entry
            self._entries.update(entries)
            self._has_plugins = True
        for text in self._broken:
            warnings.warn(f"{text} It is left out.", SoftPromptsWarning, stacklevel=4)

    def _load_point(self, point: EntryPoint) -> Entry | str:
        """Return an entry of a third party, or why there is none."""
        what = "softprompts.registry.Entry"
        try:
            entry = load_point(point, what)
        except RegistryError as error:
            return str(error)
        if isinstance(entry, Entry) and entry.is_method:
            return f"{wrong_target(point, what)}is one with `is_method`: only built-in ones may."
        return entry if isinstance(entry, Entry) else f"{wrong_target(point, what)}is {entry!r}."

    def _taken(self, entry: Entry, entries: Mapping[str, Entry]) -> str:
        """Return that the name of an entry is another's, or ""."""
        if entry.name not in entries:
            return ""
        owner = entries[entry.name].target
        return f"{self.kind} name must be free, but {entry.name!r} is taken by {owner}."


def unknown_name(kind: str, name: str, known: Any) -> str:
    """Return the sentence for an unknown name: near names first, then the list."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"{kind} must be one of {', '.join(names) or '(none)'}, but is {name!r}.{hint}"
