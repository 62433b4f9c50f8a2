"""Whether so many seeds can show anything, known before a study starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from softprompts.recipes.grid import Cell
from softprompts.recipes.seeds import MoreSeedsConfig

RATE = 0.05
"""How many families of tests may have a false find."""

LOOK_EVERY = 4
"""About how many seeds are added before a study is looked at again."""


def needed_seeds(num_tests: int) -> int:
    """Return the fewest seeds with which paired tests can show a difference on one task.

    The least `p` of `n` pairs is `2 / 2^n`; Holm's correction takes it times the tests.

    Example:
        >>> needed_seeds(1), needed_seeds(2), needed_seeds(4)
        (6, 7, 8)
    """
    return math.ceil(1 + math.log2(max(num_tests, 1) / RATE) - 1e-9)


def next_look(last: int, most: int, num_seeds: int, num_tasks: int) -> int:
    """Return after how many seeds a study is looked at next, that was looked at after `last`, or 0.

    The first look is where it can show something: at `n` of `N` seeds, a share `n / N` of the rate
    is spent, and the least `p` of `n` seeds on `T` tasks is `2 / 2^(nT)`.

    Example:
        >>> next_look(0, 20, 5, 1), next_look(7, 20, 7, 1)
        (7, 10)
    """
    if last:
        left = most - last
        count = last + round(left / math.ceil(left / LOOK_EVERY))
    else:
        can_show = (n for n in range(1, most) if 2.0 ** (1 - n * num_tasks) <= RATE * n / most)
        count = max(2, next(can_show, most))
    return max(count, num_seeds)


def study_size(cells: Sequence[Cell], more: MoreSeedsConfig | None = None) -> str:
    """Return what the seeds of a study can show of its variants, at each point of its grid.

    On several tasks it is what their mean can show: each seed is then a pair of runs per task. It
    is empty where no variants are compared, or not all have the same tasks.
    """
    tasks: dict[str, set[str]] = {}
    for cell in cells:
        tasks.setdefault(cell.variant, set()).add(cell.task)
    num_tests, num_tasks = len(tasks) - 1, len({cell.task for cell in cells})
    if more is not None:
        return _looks(more, len({cell.config.seed for cell in cells}), num_tasks)
    if num_tests < 1 or any(len(own) < num_tasks for own in tasks.values()):
        return ""
    num_seeds = len({cell.config.seed for cell in cells})
    over = f" on {num_tasks} tasks" if num_tasks > 1 else ""
    size = f"{_counted(num_seeds, 'seed')} and {_counted(num_tests, 'comparison')}{over}"
    least = min(1.0, num_tests * 2.0 ** (1 - num_seeds * num_tasks))
    fewest = max(2, math.ceil(needed_seeds(num_tests) / num_tasks))
    if num_seeds < fewest:
        why = f"no corrected p is below {least:.2g}" if least > RATE else "no spread is known"
        return f"{size} can show no difference: {why}; {fewest} seeds can, where all agree"
    alike = f" where all runs agree (corrected p {least:.2g})" if least > RATE / 2 else ""
    return f"{size} can show a difference{alike}"


def _looks(more: MoreSeedsConfig, num_seeds: int, num_tasks: int) -> str:
    looks = list(more.looks or [])
    while not looks or looks[-1] < more.most:
        looks.append(next_look(looks[-1] if looks else 0, more.most, num_seeds, num_tasks))
    after = ", ".join(map(str, looks))
    return f"seeds are added until the leader is shown to lead, with looks after {after}"


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
