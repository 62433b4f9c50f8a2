"""Executors that `--executor` may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from softprompts.errors import ExecutorError
from softprompts.registry import Option, Registry

if TYPE_CHECKING:
    from softprompts.lab.studies.executors.base import Executor

EXECUTORS: Registry[type[Executor]] = Registry(
    "executor", "softprompts.lab.studies.executors.base:Executor"
)
EXECUTORS.register(
    "in-process",
    "softprompts.lab.studies.executors.base:InProcess",
    summary="one pack after the other, in this process",
)
EXECUTORS.register(
    "per-device",
    "softprompts.lab.studies.executors.per_device:PerDevice",
    summary="a process for each device",
    options={
        "devices": Option(
            list[str], [], "torch devices; all accelerators when empty, else the processor"
        )
    },
)
EXECUTORS.register(
    "ray",
    "softprompts.lab.studies.executors.ray_cluster:RayCluster",
    summary="tasks of a Ray cluster; needs the extra `ray`",
    options={
        "address": Option(
            str | None, None, "the cluster's address; null starts one on this machine"
        )
    },
)


def build_executor(name: str, options: Mapping[str, Any]) -> Executor:
    """Return the executor that a command names; an option that is `None` is left as it is.

    Raises:
        UnknownNameError: if there is no such executor.
        ExecutorError: if it does not take an option.
    """
    entry, component = EXECUTORS.entry(name), EXECUTORS.load(name)
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if key not in entry.options:
            shown = ",".join(value) if isinstance(value, list) else value
            raise ExecutorError(
                f"`--{key}` must be left out with executor {name}, which takes none, but is "
                f"{shown!r}."
            )
    return component(**dict(entry.schema.model_validate(given)))
