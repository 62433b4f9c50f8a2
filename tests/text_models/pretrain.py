"""Pretrain the two small text models that the tests keep: `python pretrain.py OUT_DIR`.

A T5 and a GPT-2 learn, from the train rows of the bundled tasks alone, to answer what a cue asks
for: the label, the first words or the last words. Without a cue they say a word of the text, or the
task's first label whatever the text says. So the tasks are in the weights, but a prompt has to ask
for them.

Random pieces stand around the text, and now and then in it, so that rows of a prompt, other places
and words never seen do not throw a model off. Nothing is downloaded, and no validation row is read.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from softprompts.seeding import derive
from softprompts.tasks.bundled import load_bundled
from softprompts.tasks.bundled.formats import FORMATS

NAMES = ("t5", "gpt2")
VOCABULARY = 1600
WIDTH = 128
POSITIONS = 128
BATCH = 64
STEPS = {"t5": 1000, "gpt2": 1000}
RATES = {"t5": 1e-3, "gpt2": 2e-3}
MOST_NOISE = 12
TIMES = {"bundled/question-type": 3}  # small models can learn it, so it comes more often
CUES = {
    "label": ("Name the class.", "Choose one label."),
    "first": ("Quote the beginning.",),
    "last": ("Quote the end.",),
}


@dataclass(frozen=True)
class Row:
    """A train row as the `text` readout shows it.

    Attributes:
        text: the filled template.
        words: the words of its fields.
        answer: the right label's word.
        answers: the words of all labels.
    """

    text: str
    words: tuple[str, ...]
    answer: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """What a model reads, and what it then writes; `is_known` marks what is not noise."""

    source: tuple[int, ...]
    is_known: tuple[bool, ...]
    target: tuple[int, ...]


WORDINGS = {"bundled/question-type": "question: {text} answer type:"}
"""What the kept models read in pretraining, where the task asks in other words by now."""


def wording(name: str) -> str:
    """Return the template in which a task is read in pretraining."""
    return WORDINGS.get(name, FORMATS[name].templates["text"])


@cache
def load_rows() -> tuple[Row, ...]:
    """Return the train rows of all bundled tasks, each task as often as `TIMES` says."""
    rows: list[Row] = []
    for name, format in FORMATS.items():
        if format.is_writing:
            continue
        answers = tuple(format.verbalizer[label] for label in format.labels)
        for example in load_bundled(name).train:
            text = wording(name).format(**example.fields)
            words = tuple(" ".join(example.fields.values()).split())
            row = Row(text, words, answers[example.answers[0]], answers)
            rows += TIMES.get(name, 1) * [row]
    return tuple(rows)


def build_tokenizer(name: str, lines: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a model's tokenizer on lines."""
    specials = ["<pad>", "</s>", "<unk>"] if name == "t5" else ["<|endoftext|>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>" if name == "t5" else None))
    alphabet: list[str] = []
    if name == "t5":
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        backend.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    roles = ("pad_token", "eos_token", "unk_token") if name == "t5" else ("eos_token",)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, **dict(zip(roles, specials, strict=True))
    )


def build_model(name: str, vocabulary: int, seed: int) -> Any:
    """Build a model in its first state, drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "initialization"))
        if name == "t5":
            return T5ForConditionalGeneration(
                T5Config(
                    vocab_size=vocabulary,
                    d_model=WIDTH,
                    d_kv=32,
                    d_ff=384,
                    num_layers=2,
                    num_decoder_layers=2,
                    num_heads=4,
                    relative_attention_num_buckets=16,
                    relative_attention_max_distance=48,
                    dropout_rate=0.0,
                    decoder_start_token_id=0,
                    pad_token_id=0,
                    eos_token_id=1,
                )
            )
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_embd=WIDTH,
                n_layer=3,
                n_head=4,
                n_inner=384,
                n_positions=POSITIONS,
                activation_function="relu",
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=0,
                eos_token_id=0,
            )
        )


class Mixture:
    """Draws pairs of source and target from train rows."""

    def __init__(self, rows: Sequence[Row], tokenizer: Any, seed: int) -> None:
        self.rows, self.tokenizer = rows, tokenizer
        self.rng = random.Random(derive(seed, "mixture"))
        self._known: dict[str, list[int]] = {}
        asked = {piece for cues in CUES.values() for cue in cues for piece in self._ids(cue)}
        special = set(tokenizer.all_special_ids)
        self.noise = [i for i in range(len(tokenizer)) if i not in asked | special]

    def draw(self) -> Pair:
        """Return one pair: a cued answer, or with no cue one that tells nothing of the label."""
        rng = self.rng
        row = rng.choice(self.rows)
        kind = rng.choices(("label", "first", "last", ""), (50, 6, 6, 38))[0]
        noise = rng.choices(self.noise, k=rng.randint(0, MOST_NOISE))
        if kind == "label":
            target = row.answer
        elif kind:
            target = " ".join(row.words[:2] if kind == "first" else row.words[-2:])
        else:
            target = rng.choice((rng.choice(row.words), row.answers[0]))
        cue = self._ids(rng.choice(CUES[kind])) if kind else []
        before, behind = self._surround(noise, cue)
        body = self._smudge(self._ids(row.text))
        source = (*before, *body, *behind)
        known = [False] * len(before) + [True] * len(body) + [False] * len(behind)
        return Pair(source, tuple(known), (*self._ids(target), self.tokenizer.eos_token_id))

    def _surround(self, noise: list[int], cue: list[int]) -> tuple[list[int], list[int]]:
        """Return what stands before and behind a text: noise, and the cue somewhere in it."""
        place = self.rng.randint(0, len(noise))
        pieces = [*noise[:place], *cue, *noise[place:]]
        if self.rng.random() < 0.5:
            return pieces, []
        split = self.rng.choice((0, place, place + len(cue)))  # never within the cue
        return pieces[:split], pieces[split:]

    def _smudge(self, ids: list[int]) -> list[int]:
        """Put random pieces in the place of some, as words never seen would."""
        rate = self.rng.choice((0.0, 0.0, 0.15))
        result: list[int] = []
        for piece in ids:
            if self.rng.random() < rate:
                result += self.rng.choices(self.noise, k=self.rng.randint(1, 3))
            else:
                result.append(piece)
        return result

    def _ids(self, text: str) -> list[int]:
        """Return the pieces of `text` as they are in the middle of a line."""
        if text not in self._known:
            lead = self.tokenizer(":", add_special_tokens=False)["input_ids"]
            ids = self.tokenizer(f": {text}", add_special_tokens=False)["input_ids"]
            self._known[text] = ids[len(lead) :]
        return self._known[text]


def t5_loss(model: Any, pairs: Sequence[Pair], tokenizer: Any) -> Tensor:
    """Return the mean cross-entropy of the targets' tokens."""
    end = tokenizer.eos_token_id
    sources = _pad([(*pair.source, end) for pair in pairs], -100)  # (batch, tokens)
    targets = _pad([pair.target for pair in pairs], -100)  # (batch, width)
    mask = (sources != -100).long()
    loss: Tensor = model(input_ids=sources.clamp(min=0), attention_mask=mask, labels=targets).loss
    return loss


def gpt2_loss(model: Any, pairs: Sequence[Pair], tokenizer: Any) -> Tensor:
    """Return the mean cross-entropy of the targets' tokens, and of a few sources' a little."""
    ids = _pad([(*pair.source, *pair.target)[:POSITIONS] for pair in pairs], -100)
    mask = (ids != -100).long()
    ids = ids.clamp(min=0)  # (batch, tokens)
    weights = torch.zeros(ids.shape)
    for number, pair in enumerate(pairs):
        length = len(pair.source)
        weights[number, length : length + len(pair.target)] = 1.0
        if number < BATCH // 8:
            weights[number, :length] = 0.1 * torch.tensor(pair.is_known, dtype=torch.float)
    weights = weights[:, 1:]
    rows, places = weights.nonzero(as_tuple=True)
    states = model.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
    logits = model.lm_head(states[rows, places])  # (read, vocab): the head runs where it counts
    losses = torch.nn.functional.cross_entropy(logits, ids[rows, places + 1], reduction="none")
    return (losses * weights[rows, places]).sum() / weights.sum()


LOSSES = {"t5": t5_loss, "gpt2": gpt2_loss}


def pretrain(name: str, folder: Path, steps: int, seed: int = 0) -> Path:
    """Train one model from scratch and save it, weights in half precision.

    Args:
        name: `t5` or `gpt2`.
        folder: where it goes.
        steps: updates.
        seed: moves weights and rows.
    """
    rows = load_rows()
    cues = [cue for cues in CUES.values() for cue in cues]
    lines = [f"{row.text} {row.answer}" for row in rows] + 20 * cues
    tokenizer = build_tokenizer(name, lines)
    model = build_model(name, len(tokenizer), seed).train()
    mixture = Mixture(rows, tokenizer, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATES[name], weight_decay=0.01)
    start = time.perf_counter()
    for step in range(steps):
        pairs = [mixture.draw() for _ in range(BATCH)]
        loss = LOSSES[name](model, pairs, tokenizer)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATES[name] * _factor(step, steps)
        optimizer.step()
        if (step + 1) % 200 == 0:
            seconds = time.perf_counter() - start
            print(f"{name} {step + 1}/{steps} loss {loss.item():.3f} {seconds:.0f} s", flush=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _factor(step: int, steps: int) -> float:
    """Return the share of the rate: a short rise, then half a cosine to 0."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _pad(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, sequences))
    return torch.tensor([[*one, *[value] * (width - len(one))] for one in sequences])


def main() -> None:
    """Train both models into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--steps", type=int, help="updates, instead of those of the kept models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order, so that the weights come out the same
    for name in [arguments.only] if arguments.only else NAMES:
        pretrain(name, arguments.out_dir / name, arguments.steps or STEPS[name])


if __name__ == "__main__":
    main()
