"""What each frozen backbone says of inputs by themselves: the latest in memory, all on disk."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, final
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.cache_folder import find_cache_folder
from softprompts.fast.cache_key import Switches, describe_reading, read_switches
from softprompts.fast.disk_cache import DiskCache, digest

_MAX_ENTRIES = 65536
_MOST_WAITING = 512
_MOST_SECONDS = 10.0


@final
class Readings:
    """What was read of inputs by one backbone under the same switches of torch.

    What still waits when the backbone goes, or the process ends, is made durable then.

    Args:
        backbone: the frozen model; only its device is kept.
        cache: keeps readings beyond the process; `None` keeps none.
    """

    def __init__(self, backbone: Backbone, cache: DiskCache | None) -> None:
        self.device, self._cache = backbone.device, cache
        self._end = None if cache is None else finalize(backbone, cache.save)
        self._kept: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()
        self._num_waiting, self._seconds = 0, 0.0

    def find(self, key: tuple[Any, ...], read: Callable[[], Tensor], is_durable: bool) -> Tensor:
        """Return what is read of an input, read where it is not kept.

        A caller's autocast does not reach the reading.

        Args:
            key: the kind of reading, and the input.
            read: returns the reading. Shape `(1, width)`.
            is_durable: whether it may be kept on disk.
        """
        value = self._kept.get(key)
        if value is not None:
            return value
        cache = self._cache if is_durable else None
        name = b"" if cache is None else reading_key(key)
        found = None if cache is None else cache.get(name)
        if found is not None:
            return self._remember(key, found[None].to(self.device))
        began = time.perf_counter()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            value = self._remember(key, read())
        if cache is not None and value.shape[:-1] == (1,):
            cache.add(name, value)
            self._num_waiting += 1
            self._seconds += time.perf_counter() - began
            if self._num_waiting >= _MOST_WAITING or self._seconds > _MOST_SECONDS:
                self.save()
        return value

    def save(self) -> None:
        """Make what waits durable."""
        if self._cache is not None:
            self._cache.save()
        self._num_waiting, self._seconds = 0, 0.0

    def drop(self) -> None:
        """Give up what waits, as a kill would."""
        if self._end is not None:
            self._end.detach()

    def _remember(self, key: tuple[Any, ...], value: Tensor) -> Tensor:
        self._kept[key] = value
        if len(self._kept) > _MAX_ENTRIES:
            self._kept.popitem(last=False)
        return value


_READINGS: WeakKeyDictionary[Backbone, dict[Switches, Readings]] = WeakKeyDictionary()


def readings_of(backbone: Backbone) -> Readings:
    """Return the readings of a backbone under the present switches of torch.

    Args:
        backbone: the frozen model.

    Raises:
        StorageError: if an environment variable of the cache is wrong.
    """
    switches = read_switches()
    by_switches = _READINGS.setdefault(backbone, {})
    if switches not in by_switches:
        folder, cache = find_cache_folder(), None
        if (
            folder is not None and not backbone.is_spread
        ):  # else not all its bits depend on is known
            cache = DiskCache(folder, describe_reading(backbone, switches), "Readings")
        by_switches[switches] = Readings(backbone, cache)
    return by_switches[switches]


def all_readings(backbone: Backbone | None = None) -> list[Readings]:
    """Return the readings of a backbone, or of all, that this process has."""
    groups = list(_READINGS.values()) if backbone is None else [_READINGS.get(backbone, {})]
    return [readings for group in groups for readings in list(group.values())]


def forget_readings() -> None:
    """Make this process forget what it has read, as a kill would; what is on disk stays."""
    for readings in all_readings():
        readings.drop()
    _READINGS.clear()


def reading_key(key: tuple[Any, ...]) -> bytes:
    """Return the 32 bytes that a reading is found by on disk."""
    return digest(json.dumps(key, separators=(",", ":")))
