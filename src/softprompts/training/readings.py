"""The readings of each frozen backbone: the latest in memory, all that fit on disk."""

from __future__ import annotations

import hashlib
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
from softprompts.training.instance_cache import InstanceCache, NoCache, ReadingCache
from softprompts.training.surroundings import (
    Switches,
    describe_surroundings,
    read_switches,
    surroundings_key,
)

_MAX_ENTRIES = 65536
_MOST_WAITING = 512
_MOST_SECONDS = 10.0

_Key = tuple[Any, ...]


@final
class Readings:
    """What was read of inputs by one backbone in one surrounding.

    What still waits when the backbone goes, or the process ends, is made durable then.

    Args:
        backbone: the frozen model; only its device is kept.
        cache: keeps readings beyond the process.
    """

    def __init__(self, backbone: Backbone, cache: ReadingCache) -> None:
        self.device, self.cache = backbone.device, cache
        self._end = finalize(backbone, cache.save)
        self._kept: OrderedDict[_Key, Tensor] = OrderedDict()
        self._num_waiting, self._seconds = 0, 0.0

    def find(self, key: _Key, is_durable: bool) -> Tensor | None:
        """Return what was read of an input, or `None`.

        Args:
            key: the kind of reading, and the input.
            is_durable: whether it may be on disk.
        """
        value = self._kept.get(key)
        if value is None and is_durable:
            found = self.cache.get(digest(key))
            if found is not None:
                value = found.to(self.device)
                self._remember(key, value)
        return value

    def keep(self, key: _Key, read: Callable[[], Tensor], is_durable: bool) -> Tensor:
        """Read an input, and keep what was read.

        A caller's autocast does not reach the reading.

        Args:
            key: the kind of reading, and the input.
            read: returns the reading.
            is_durable: whether it is kept on disk.

        Returns:
            The reading.
        """
        began = time.perf_counter()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            value = read()
        self._remember(key, value)
        if is_durable:
            self.cache.add(digest(key), value)
            self._num_waiting += 1
            self._seconds += time.perf_counter() - began
            if self._num_waiting >= _MOST_WAITING or self._seconds > _MOST_SECONDS:
                self.save()
        return value

    def save(self) -> None:
        """Make what waits durable."""
        self.cache.save()
        self._num_waiting, self._seconds = 0, 0.0

    def drop(self) -> None:
        """Give up what waits, as a kill would."""
        self._end.detach()

    def _remember(self, key: _Key, value: Tensor) -> None:
        self._kept[key] = value
        if len(self._kept) > _MAX_ENTRIES:
            self._kept.popitem(last=False)


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
        by_switches[switches] = Readings(backbone, _open_cache(backbone, switches))
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


def digest(key: _Key) -> bytes:
    """Return the 32 bytes that an entry is found by on disk."""
    return hashlib.sha256(json.dumps(key, separators=(",", ":")).encode()).digest()


def _open_cache(backbone: Backbone, switches: Switches) -> ReadingCache:
    folder = find_cache_folder()
    if folder is None or backbone.is_spread:  # what its bits depend on is not all known
        return NoCache()
    about = describe_surroundings(backbone, switches)
    return InstanceCache(folder, surroundings_key(about), about)
