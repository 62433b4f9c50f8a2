"""Prompts steer small text models that were pretrained for real; see `tests/text_models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch

from softprompts import PromptConfig, TrainingConfig, train
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.loading import load_backbone
from softprompts.examples import Example
from softprompts.prompts.prompt import Prompt
from softprompts.readouts.base import Readout
from softprompts.recipes.presets import METHODS
from softprompts.results import Result
from softprompts.tasks.base import Task
from softprompts.tasks.bundled import load_bundled
from softprompts.tasks.bundled.formats import FORMATS
from softprompts.training.building import build_model
from softprompts.training.evaluation import best_column, score_examples
from text_models.pretrain import NAMES, load_rows, pretrain, wording

FOLDER = Path(__file__).resolve().parents[1] / "text_models"
PRESETS = tuple(name for name, one in METHODS.items() if one.is_trained and name != "head-only")
TRAINING = {
    "steps": 40,
    "batch_size": 16,
    "learning_rate": 0.1,
    "selection": "last",
    "num_evaluations": 1,
}

RATES = {
    "adap-pos": {"learning_rate": 0.3},
    "fine-tuning": {"backbone_learning_rate": 0.001},
    "lora": {"backbone_learning_rate": 0.01},
}
TASK = "bundled/question-type"
LEAST_GAIN = 0.15
MOST_TOKENS = 4


Run = Callable[[str, str], tuple[float, Result]]


@cache
def text_model(name: str) -> Backbone:
    return load_backbone(str(FOLDER / name))


@pytest.fixture(scope="module")
def task() -> Task:
    """Return a bundled task, its validation rows cut to 120."""
    whole = load_bundled(TASK)
    templates = {**whole.format.templates, "text": wording(TASK)}
    form = replace(whole.format, templates=templates)
    return replace(whole, format=form, validation=whole.validation[:120])


@pytest.fixture(scope="module")
def run(task: Task) -> Run:
    """Return a function from model and method to a run: its score untrained, and its result."""
    runs: dict[tuple[str, str], tuple[float, Result]] = {}

    def get(name: str, method: str) -> tuple[float, Result]:
        if (name, method) not in runs:
            backbone = text_model(name)
            result = train(
                backbone,
                task,
                prompt=PromptConfig(method=method),
                readout="text",
                training=TrainingConfig.model_validate({**TRAINING, **RATES.get(method, {})}),
            )
            first = build_model(result.config, backbone, task.format)
            lines = scores_of(backbone, first.prompt, first.readout, task.validation)
            right = [
                best_column(s) in e.answers for s, e in zip(lines, task.validation, strict=True)
            ]
            runs[name, method] = sum(right) / len(right), result
        return runs[name, method]

    return get


def scores_of(
    backbone: Backbone, prompt: Prompt, readout: Readout, examples: Sequence[Example]
) -> list[tuple[float, ...]]:
    """Return a score per example and label."""
    encoded = [readout.encode(example) for example in examples]
    return score_examples(backbone, prompt, readout, encoded)[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", PRESETS)
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_beats_its_untrained_prompt(run: Run, name: str, method: str) -> None:
    before, result = run(name, method)
    after = result.score
    assert after is not None
    print(f"| `{method}` | {name} | {100 * before:.0f} | {100 * after:.0f} |")
    assert after - before >= LEAST_GAIN


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_prompt_is_near_chance(run: Run, name: str) -> None:
    before, _ = run(name, "prompt-tuning")
    assert before == pytest.approx(1 / 6, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_greedy_decoding_writes_the_label_that_scores_best(run: Run, task: Task, name: str) -> None:
    """Labels are one token each, so a decoder's label that is likeliest of all tokens scores best.

    An encoder-decoder scores the end token too; its labels are all but sure to end there.
    """
    _, result = run(name, "prompt-tuning")
    model, examples = result.model, task.validation[:60]
    scores = scores_of(text_model(name), model.prompt, model.readout, examples)
    rows = model.prompt.bake()
    words = [task.format.verbalizer[label] for label in task.format.labels]
    num_labels = 0
    for example, line in zip(examples, scores, strict=True):
        text, likelihood = write(text_model(name), rows, shown(example, task))
        if text not in words:
            continue
        num_labels += 1
        column = words.index(text)
        assert column == best_column(line)
        assert line[column] == pytest.approx(likelihood, abs=1e-4)
    assert num_labels >= 0.9 * len(examples)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", PRESETS)
def test_generation_answers_as_scoring_does(run: Run, task: Task, name: str, method: str) -> None:
    """What `generate` writes, with nothing to choose from, is the label that scores best.

    A decoder's labels are one token each: where it writes a label at all, that one is the likeliest
    token and must score best. An encoder-decoder writes the end token too.
    """
    _, result = run(name, method)
    inputs = [dict(example.fields) for example in task.validation[:40]]
    predicted = [task.format.verbalizer[label] for label in result.predict(inputs)]
    options = {"max_new_tokens": 1 if name == "gpt2" else 2, "do_sample": False}
    written = [text.strip() for text in result.generate(inputs, **options)]
    assert written == [text.strip() for text in result.generate(inputs, use_cache=False, **options)]
    words = set(task.format.verbalizer.values())
    labels = [(text, word) for text, word in zip(written, predicted, strict=True) if text in words]
    # what ranks labels among themselves makes no other word less likely
    assert len(labels) >= (0.5 if method == "stable" else 0.9) * len(inputs)
    assert all(text == word for text, word in labels)


def shown(example: Example, task: Task) -> str:
    return task.format.templates["text"].format(**example.fields)


@torch.no_grad()
def write(backbone: Backbone, rows: torch.Tensor, text: str) -> tuple[str, float]:
    """Write greedily after rows and a text, built without the library's encoding and splice.

    Args:
        backbone: the model.
        rows: prompt rows, all before the text.
        text: the filled template.

    Returns:
        What was written before the end token, and the log-likelihood of what the readout scores:
        one token, and for an encoder-decoder the end token too.
    """
    tokenizer = backbone.tokenizer
    tokens = backbone.embed(torch.tensor([tokenizer(text)["input_ids"]]))
    written: list[int] = []
    likelihoods: list[float] = []
    for _ in range(MOST_TOKENS):
        parts = [rows[None], tokens]
        decoder = None
        if backbone.family == "encoder-decoder":
            ids = torch.tensor([[backbone.model.config.decoder_start_token_id, *written]])
            decoder = DecoderInputs(ids, torch.tensor([0]), torch.ones_like(ids))
            place = len(written)
        else:
            parts.append(backbone.embed(torch.tensor([written], dtype=torch.long)))
            place = rows.shape[0] + tokens.shape[1] + len(written) - 1
        embeddings = torch.cat(parts, dim=1)  # (1, length + tokens, hidden)
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
        logits = backbone.logits(embeddings, mask, None, torch.tensor([[place]]), decoder)
        log_probabilities = logits[0, 0].log_softmax(dim=-1)  # (vocab,)
        best = int(log_probabilities.argmax())
        likelihoods.append(float(log_probabilities[best]))
        if best == tokenizer.eos_token_id:
            break
        written.append(best)
    num_scored = 2 if backbone.family == "encoder-decoder" else 1
    return tokenizer.decode(written).strip(), sum(likelihoods[:num_scored])


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_one_token_each(name: str) -> None:
    backbone = text_model(name)
    format = FORMATS[TASK]
    lead = len(backbone.tokenizer(":", add_special_tokens=False)["input_ids"])
    spelled = [
        backbone.tokenizer(f": {word}", add_special_tokens=False)["input_ids"][lead:]
        for word in format.verbalizer.values()
    ]
    assert [len(ids) for ids in spelled] == [1] * len(format.labels)
    assert all(a != b for a, b in combinations(spelled, 2))


@pytest.mark.parametrize("name", NAMES)
def test_kept_models_are_small(name: str) -> None:
    backbone = text_model(name)
    assert backbone.family == {"t5": "encoder-decoder", "gpt2": "decoder"}[name]
    assert backbone.has_language_head
    assert sum(p.numel() for p in backbone.model.parameters()) <= 2_000_000
    assert (FOLDER / name / "model.safetensors").stat().st_size <= 4 * 2**20


def test_no_validation_row_enters_pretraining() -> None:
    read = {row.text for row in load_rows()}
    tasks = [load_bundled(name) for name, format in FORMATS.items() if not format.is_writing]

    def texts(split: str) -> set[str]:
        pairs = ((task, example) for task in tasks for example in getattr(task, split))
        return {wording(task.format.name).format(**example.fields) for task, example in pairs}

    assert read == texts("train")
    assert not read & texts("validation")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_pretraining_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    folders = [pretrain(name, tmp_path / str(i), 1, seed) for i, seed in enumerate((0, 0, 1))]
    files = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert files[0] == files[1] != files[2]
    assert torch.equal(state, torch.random.get_rng_state())
    made, kept = load_backbone(str(folders[0])).tokenizer, text_model(name).tokenizer
    assert made.get_vocab() == kept.get_vocab()
