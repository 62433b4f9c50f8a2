"""What a training step of a decoder costs where part of it needs no prompt, and is kept.

    python benchmarks/decoder.py [--layers 12] [--tokens 256] [--rounds 10] [--out FILE.json]

Rows behind the input: its keys and values are kept, and a step runs rows and label tokens alone.
Rows in the upper third of the layers: the states below are kept. Either is compared with a step
that reads all again, on a random GPT-2 of the small one's width. Both take turns in one process, so
that a busy machine slows both alike; ratios are medians over rounds. `first` is a step that meets
its inputs for the first time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import string
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import softprompts as sp
from softprompts.encoding.batch import Batch, collate
from softprompts.examples import Example, TaskFormat
from softprompts.fast import READER, reader
from softprompts.fast.kept import Kept
from softprompts.prompts.draws import Draws
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.seeding import generator
from softprompts.tasks.base import Task
from softprompts.training.building import build_model
from softprompts.training.forward import Part, score

LETTERS = string.ascii_lowercase
LABELS = ("north", "south", "east", "west")
BEHIND = {"position": {"kind": "fixed", "split": 0}}
CASES = {
    "linear": ("linear", BEHIND, 4.0),
    "text": ("text", BEHIND, 4.0),
    "upper layers": ("linear", {}, 1.5),
}
"""Readout, prompt, and the least gain of a step whose inputs are kept."""


def random_gpt2(layers, dtype, device):
    """Return a random backbone of GPT-2's width; a token of its tokenizer is a letter."""
    words = {letter: number for number, letter in enumerate(["<end>", *LETTERS])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", bos_token="<end>", unk_token="<end>"
    )
    config = transformers.GPT2Config(n_layer=layers, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return sp.load_backbone(folder, dtype=dtype, device=device)


def random_task(count, tokens):
    """Return a task whose inputs have a number of tokens, with four labels."""
    draws = generator(0, "benchmark")
    numbers = torch.randint(0, len(LETTERS), (count, tokens), generator=draws).tolist()
    rows = tuple(
        Example({"text": "".join(LETTERS[n] for n in line)}, answers=(i % len(LABELS),))
        for i, line in enumerate(numbers)
    )
    templates = {"linear": "{text}", "text": "{text}"}
    verbalizer = dict(zip(LABELS, LABELS, strict=True))
    return Task(TaskFormat("custom", 1, LABELS, templates, verbalizer, ("accuracy",)), rows, (), ())


@dataclass
class Step:
    """A training step that can be done again and again."""

    backbone: sp.Backbone
    model: object
    batch: Batch

    def run(self):
        """Do the forward and backward pass; return scores and gradients."""
        model, batch = self.model, self.batch
        draws = Draws(0, 0, 0, batch.examples, batch.size)
        part = Part(model.prompt, model.readout, batch, draws)
        scores = score(self.backbone, [part])[0]
        model.readout.loss(scores, batch).sum().backward()
        found = [scores.detach(), *(p.grad for p in model.parameters)]
        for parameter in model.parameters:
            parameter.grad = None
        return found

    def time(self):
        """Return the seconds of a step."""
        _wait(self.backbone)
        began = time.perf_counter()
        self.run()
        _wait(self.backbone)
        return time.perf_counter() - began


def _wait(backbone):
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def recomputing():
    """Read whole inputs while this lasts."""
    true = reader.read_ahead, reader.read_below
    reader.read_ahead = reader.read_below = lambda *given: None
    try:
        yield
    finally:
        reader.read_ahead, reader.read_below = true


def build(backbone, task, readout, prompt):
    """Return a step of a run."""
    recipe = {
        "backbone": {"name": "gpt2"},
        "task": {"name": "custom"},
        "readout": readout,
        "prompt": prompt,
        "training": {"selection": "last"},
    }
    model = build_model(resolve(parse_run(recipe)), backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    return Step(backbone, model, batch.to(backbone.device))


def compare(step, rounds):
    """Return median milliseconds and ratios of a step, and how much its gradients differ."""
    with recomputing():
        expected = step.run()
    found = step.run()
    pairs = zip(found, expected, strict=True)
    differences = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    times = {"whole": [], "known": [], "first": []}
    for _ in range(rounds):
        with recomputing():
            times["whole"].append(step.time())
        times["known"].append(step.time())
        READER.ways(step.backbone).kept = Kept(step.backbone.device)
        times["first"].append(step.time())
    line = {f"{name}_milliseconds": 1000 * statistics.median(t) for name, t in times.items()}
    for name in ("known", "first"):
        ratios = [a / b for a, b in zip(times["whole"], times[name], strict=True)]
        line[f"{name}_ratio"] = statistics.median(ratios)
    return {**line, "difference": max(differences)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    backbone = random_gpt2(options.layers, options.dtype, options.device)
    task = random_task(options.batch, options.tokens)
    rows = {}
    upper = {"kind": "every-layer", "from_layer": 2 * options.layers // 3}
    for name, (readout, prompt, limit) in CASES.items():
        prompt = {"length": options.length, **(prompt or {"depth": upper})}
        rows[name] = compare(build(backbone, task, readout, prompt), options.rounds)
        line = rows[name]
        word = "ok" if line["known_ratio"] >= limit else "TOO SLOW"
        print(
            f"{name:12} whole {line['whole_milliseconds']:8.1f} ms, "
            f"known {line['known_milliseconds']:8.1f} ms: {line['known_ratio']:5.2f} times as fast "
            f"(at least {limit:.1f}: {word}); first {line['first_ratio']:5.2f}; "
            f"difference {line['difference']:.1e}"
        )
    about = {
        **{k: v for k, v in vars(options).items() if k != "out"},
        "threads": torch.get_num_threads(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", "unknown"),
    }
    if options.out:
        rounded = {r: {k: float(f"{v:.3g}") for k, v in line.items()} for r, line in rows.items()}
        options.out.write_text(json.dumps({"about": about, "steps": rounded}, indent=2) + "\n")


if __name__ == "__main__":
    main()
