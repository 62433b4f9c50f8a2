"""How fast prompts train and predict, against peft under its trainer and a loop by hand.

    python benchmarks/throughput.py [--data-dir FOLDER] [--sections NAME ...] [--cases NAME ...]
                                    [--threads N] [--rounds N] [--quick] [--out FILE]

All contestants take turns in one process; memory and start-up are measured in processes of their
own. Every figure is written to the results as soon as it is there: what is missing after a break
is made by naming its sections, or cases of one. `docs/results/write_throughput.py` makes the page.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "throughput.json"
SECTIONS = ("training", "inference", "scaling", "memory", "startup")


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = _parse(arguments)
    os.environ["SOFTPROMPTS_CACHE"] = "off"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    unknown = set(options.cases)
    with tempfile.TemporaryDirectory() as scratch:
        for section in options.sections:
            began = time.perf_counter()
            unknown -= _measure(section, options, Path(scratch))
            print(f"{section}: {time.perf_counter() - began:.0f} seconds", flush=True)
    if unknown:
        raise SystemExit(f"error: no section has the case {min(unknown)!r}.")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=None, help="folder with superglue/ and fewglue/")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--cases", nargs="+", default=[], help="the others are kept")
    parser.add_argument("--rounds", type=int, default=None, help="most rounds of a race")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that all works")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def _measure(section: str, options: argparse.Namespace, scratch: Path) -> set[str]:
    """Measure one section, keep each case as soon as it is there, and return their names."""
    import torch
    import transformers
    from speed import memory, prediction, scaling, startup, training
    from speed.case import Scope, Workplace
    from speed.machine import SIZE, describe, matrix_rates

    from softprompts.backbones.loading import DTYPES, choose_dtype

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)  # peft asks for a name that was renamed
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    modules = {
        "training": training,
        "inference": prediction,
        "scaling": scaling,
        "memory": memory,
        "startup": startup,
    }
    dtype = DTYPES[choose_dtype(torch.device("cpu"))]
    part: dict[str, Any] = {"about": {**describe(dtype), "is_quick": options.quick}, "cases": {}}
    if section == "training":
        part["about"]["matrix_gflops"] = matrix_rates(256 if options.quick else SIZE)
    about, kept = part["about"], _read(options.out).get(section)
    if options.cases and kept:  # measured by themselves: they say how, the others keep theirs
        part = kept
    place = Workplace(options.data_dir, scratch)
    scope = Scope(options.quick, options.rounds, tuple(options.cases))
    measured = set()
    for name, found in modules[section].measure(place, scope):
        part["cases"][name] = {**found, "about": about} if part is kept else found
        measured.add(name)
        print(f"{section}, {name}: {_short(found)}", flush=True)
        _keep(options.out, section, part)
    return measured


def _short(found: dict[str, Any]) -> str:
    ratios = {name: ratio["whole"] for name, ratio in found.get("ratios", {}).items()}
    return json.dumps(ratios or {k: v for k, v in found.items() if not isinstance(v, dict | list)})


def _read(file: Path) -> dict[str, Any]:
    """Return the results so far."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _keep(file: Path, section: str, part: dict[str, Any]) -> None:
    """Put a section into the results, the others untouched."""
    whole = _read(file)
    whole[section] = part
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps({k: whole[k] for k in SECTIONS if k in whole}, indent=1) + "\n")
    beside.replace(file)


if __name__ == "__main__":
    main()
