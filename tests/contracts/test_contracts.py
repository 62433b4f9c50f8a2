"""What every method must hold on every architecture."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

import softprompts as sp
from backbones import KINDS
from contracts.conftest import NAMED, UNTRAINED, YARDSTICKS, covering, run_config
from softprompts.encoding.batch import collate
from softprompts.errors import BackboneError, PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.registry import POOLS, POSITIONS, ROWS
from softprompts.prompts.rows.plain import PlainRows
from softprompts.recipes.presets import METHODS as PRESETS
from softprompts.tasks.templates import with_template
from softprompts.training.building import build_model
from softprompts.training.evaluation import score_examples
from softprompts.training.execution import execute
from softprompts.training.forward import Part, score

METHODS = (*PRESETS, *NAMED)
REACHING = {
    name
    for name, preset in PRESETS.items()
    if preset.depth != "input" or preset.active_length != "fixed"
} | {"residual-deep-pool-len", "split-pos-len"}
"""Methods that reach into attention."""
READOUTS = {
    "encoder": ("linear", "cloze"),
    "decoder": ("linear", "text"),
    "encoder-decoder": ("linear", "text"),
}
SPLITS = (0, 1, 4)


def family_of(kind):
    return {"t5": "encoder-decoder", "bart": "encoder-decoder"}.get(
        kind, "decoder" if kind in ("gpt2", "llama", "qwen3", "gemma3") else "encoder"
    )


CELLS = [
    (kind, method, readout)
    for kind in KINDS
    for method in METHODS
    for readout in READOUTS[family_of(kind)]
    if method != "head-only" or readout == "linear"
    if method not in UNTRAINED or readout != "linear"
    if kind != "deberta-v2" or method not in REACHING
]
ONE_OF_A_FAMILY = ("bert", "t5", "gpt2")
COVER = covering([cell for cell in CELLS if cell[0] in ONE_OF_A_FAMILY])
COVER += covering([cell for cell in CELLS if cell[0] not in ONE_OF_A_FAMILY], 1)
"""All cells; not slow is every method on one architecture of each family, and on one further."""
KEPT = covering(CELLS, 1)
"""All cells; not slow is every method and every architecture once."""
PARTS = covering(
    list(
        product(
            ("bert", "gpt2", "t5"),
            [e.name for e in ROWS],
            [e.name for e in POOLS],
            [e.name for e in POSITIONS],
        )
    ),
    1,
)
"""All combinations of parts; not slow is every part and each of three architectures once."""


def wake(model):
    """Draw what starts at zero and hides others' gradient: LoRA's matrices, ends of networks."""
    generator = torch.Generator().manual_seed(0)
    named = [*model.adaptation.named_parameters(), *model.prompt.named_parameters()]
    with torch.no_grad():
        for name, parameter in named:
            if not parameter.any() and ".logits" not in name:
                parameter.normal_(0.0, 0.2, generator=generator)


def tokens_of(backbone, text):
    return list(backbone.tokenizer(text, add_special_tokens=False)["input_ids"])


def states(backbone, ids, **kwargs):
    model = sp.SoftPromptModel(backbone, **kwargs).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state


def fixed(rows, split=None):
    position = POSITIONS.load("fixed")(len(rows), split=split)
    return Prompt(PlainRows(rows, torch.Generator()), position)


@pytest.mark.parametrize("kind", ["deberta-v2"])
@pytest.mark.parametrize("method", sorted(REACHING))
def test_what_is_refused_says_why(tiny, task, kind, method):
    backbone = tiny(kind)
    config = run_config(backbone, method, "linear")
    with pytest.raises(BackboneError, match=r"attention interface.*that of 'deberta-v2' does not"):
        build_model(config, backbone, task.format)


@pytest.mark.parametrize(("kind", "method", "readout"), COVER)
def test_every_trainable_number_is_trained_and_nothing_else(tiny, task, kind, method, readout):
    backbone = tiny(kind)
    frozen = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    model = build_model(run_config(backbone, method, readout), backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    draws = Draws(0, 0, 0, batch.examples, len(encoded))
    wake(model)
    scores = score(model.backbone, [Part(model.prompt, model.readout, batch, draws)])[0]
    assert scores.requires_grad == bool(model.parameters) == (method not in UNTRAINED)
    if method in UNTRAINED:
        return
    weights = torch.arange(1.0, scores.numel() + 1).view_as(scores)
    (model.readout.loss(scores, batch).sum() + (scores * weights).sum()).backward()
    pool = model.prompt.pool
    sets = set(pool.sets.parameters()) if pool.is_sparse else set()  # some have no input here
    for parameter in model.parameters:
        assert parameter.grad is not None
        assert parameter in sets or parameter.grad.abs().sum() > 0
    assert not sets or any(parameter.grad.abs().sum() > 0 for parameter in sets)
    trained = {
        p for p in model.backbone.model.parameters() if p.requires_grad or p.grad is not None
    }
    assert trained == set(model.adaptation.parameters())
    assert bool(trained) == (method in YARDSTICKS)
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())
    assert all(torch.equal(frozen[k], v) for k, v in backbone.model.state_dict().items())


def scored_alike(model, encoded):
    """Return the scores of examples in one batch, which are those of each by itself."""
    pad = model.backbone.tokenizer.pad_token_id
    with torch.no_grad():
        found = [
            score(model.backbone, [Part(model.prompt, model.readout, collate(given, pad))])[0]
            for given in (encoded, *([example] for example in encoded))
        ]
    joint, *alone = found
    for place, scores in enumerate(alone):
        torch.testing.assert_close(scores[0], joint[place], atol=2e-5, rtol=1e-4)
    return joint


@pytest.mark.parametrize(("kind", "method", "readout"), COVER)
def test_a_batch_scores_as_one_by_one(tiny, task, kind, method, readout):
    backbone = tiny(kind)
    model = build_model(run_config(backbone, method, readout), backbone, task.format)
    wake(model)
    read = model.backbone
    encoded = [model.readout.encode(row) for row in task.train]
    joint = scored_alike(model, encoded)
    sorted_scores, _ = score_examples(read, model.prompt, model.readout, encoded)
    torch.testing.assert_close(torch.tensor(sorted_scores), joint, atol=2e-5, rtol=1e-4)
    assert joint.std(dim=0).min() > 1e-4  # the scores say something about the input


@pytest.mark.parametrize(("kind", "split"), covering(list(product(KINDS, SPLITS)), 1))
def test_left_padding_equals_right_padding(tiny, kind, split):
    backbone = tiny(kind)
    rows = backbone.embed(torch.arange(20, 24)).float()
    model = sp.SoftPromptModel(backbone, fixed(rows, split)).eval()
    texts = ("the river", "the soup was cold and the waiter forgot us", "rain")
    lines = [list(backbone.tokenizer(text)["input_ids"]) for text in texts]
    width = max(map(len, lines))
    pad = backbone.tokenizer.pad_token_id

    def run(side):
        padded, masks = [], []
        for line in lines:
            gap = [pad] * (width - len(line))
            padded.append(gap + line if side == "left" else line + gap)
            masks.append([0] * len(gap) + [1] * len(line))
            if side == "right":
                masks[-1].reverse()
        with torch.no_grad():
            return model(torch.tensor(padded), torch.tensor(masks)).last_hidden_state

    left, right = run("left"), run("right")
    for i, line in enumerate(lines):
        size = len(line)
        torch.testing.assert_close(left[i, width - size :], right[i, :size], atol=1e-5, rtol=1e-4)
        alone = states(backbone, line, prompt=fixed(rows, split))
        torch.testing.assert_close(alone[0], right[i, :size], atol=2e-5, rtol=1e-4)
        assert right[i, size:].abs().sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_length_zero_is_the_bare_backbone(tiny, kind):
    backbone = tiny(kind)
    ids = backbone.tokenizer("the soup was cold")["input_ids"]
    body = backbone.model.base_model
    body = body.get_encoder() if backbone.family == "encoder-decoder" else body
    with torch.no_grad():
        expected = body(torch.tensor([ids])).last_hidden_state
    empty = fixed(torch.zeros(0, backbone.embedding_size))
    torch.testing.assert_close(states(backbone, ids, prompt=empty), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_to_tokens_are_those_tokens_as_text(tiny, kind):
    backbone = tiny(kind)
    frame = backbone.frame
    front = tokens_of(backbone, "a good walk")
    middle = tokens_of(backbone, "the river was cold")
    back = tokens_of(backbone, "in the evening")
    whole = [*frame.prefix, *front, *middle, *back, *frame.single_suffix]
    inner = [*frame.prefix, *middle, *frame.single_suffix]
    if backbone.family == "decoder":  # rows of a decoder stand before its first special token
        whole = [*front, *frame.prefix, *middle, *back]
        inner = [*frame.prefix, *middle]
    rows = backbone.embed(torch.tensor(front + back)).float()
    expected = states(backbone, whole, prompt=fixed(torch.zeros(0, backbone.embedding_size)))[0]
    model = sp.SoftPromptModel(backbone, fixed(rows, len(front))).eval()
    with torch.no_grad():
        output = model(torch.tensor([inner]))
    keep = list(range(len(whole)))
    first = 0 if backbone.family == "decoder" else len(frame.prefix)
    row_places = keep[first : first + len(front)]
    last = first + len(front) + len(middle)
    if backbone.family == "decoder":
        last += len(frame.prefix)
    row_places += keep[last : last + len(back)]
    token_places = [i for i in keep if i not in row_places]
    torch.testing.assert_close(
        output.last_hidden_state[0], expected[token_places], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        output.prompt_hidden_state[0], expected[row_places], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("kind", "method", "readout"), KEPT)
def test_save_and_load_is_exact(tiny, task, tmp_path, kind, method, readout):
    backbone = tiny(kind)
    config = run_config(backbone, method, readout)
    result = sp.Result.of(execute(config, backbone, task, folder=tmp_path / "run"))
    assert result.summary["status"] == "finished"
    result.save(tmp_path / "saved")
    inputs = [dict(row.fields) for row in task.validation]
    expected = result.predict_scores(inputs)
    for folder in ("run", "saved"):
        assert sp.load(tmp_path / folder, backbone).predict_scores(inputs) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_baked_rows_are_the_live_ones(tiny, task, kind):
    backbone = tiny(kind)
    model = build_model(run_config(backbone, "residual", "linear"), backbone, task.format)
    baked = Prompt(PlainRows(model.prompt.bake(), torch.Generator()), model.prompt.position)
    encoded = [model.readout.encode(row) for row in task.train]
    live, _ = score_examples(backbone, model.prompt, model.readout, encoded)
    assert score_examples(backbone, baked, model.readout, encoded)[0] == live


@pytest.mark.parametrize(("kind", "rows", "pool", "position"), PARTS)
def test_every_registered_part_trains(tiny, task, kind, rows, pool, position):
    backbone = tiny(kind)
    config = run_config(backbone, "prompt-tuning", "linear")
    data = config.model_dump(mode="json")
    data["prompt"] |= {"rows": rows, "pool": pool, "position": position}
    own = task
    if position == "marked":
        own = replace(task, format=with_template(task.format, "{prompt} {text} {prompt}"))
    if ROWS.load(rows).changes_tokens and pool != "single":
        with pytest.raises(PromptError, match=r"`prompt.pool` must be 'single'.*but has . sets"):
            execute(sp.RunConfig.model_validate(data), backbone, own)
        return
    outcome = execute(sp.RunConfig.model_validate(data), backbone, own)
    assert outcome.result["status"] == "finished"
    first = build_model(outcome.config, backbone, own.format)
    assert not torch.equal(first.prompt.bake(), outcome.model.prompt.bake())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("readout", ["linear", "cloze", "text"])
def test_rows_with_choices_of_their_own(tiny, choice_task, kind, readout):
    backbone = tiny(kind)
    if readout not in READOUTS[backbone.family]:
        pytest.skip(f"{readout} is not for {backbone.family}")
    outcome = execute(run_config(backbone, "prompt-tuning", readout), backbone, choice_task)
    assert outcome.result["num_items"] == 8
    result, answers = sp.Result.of(outcome), outcome.result["answers"]
    assert answers.count("1") / len(answers) == outcome.result["score"]
    said = [result.predict_examples([row])[0]["label"] for row in choice_task.validation]
    right = [
        row.choices.index(x) in row.answers
        for x, row in zip(said, choice_task.validation, strict=True)
    ]
    assert [*map(int, answers)] == right
    row = choice_task.validation[1]
    found = result.predict_scores([{**row.fields, "choices": list(row.choices)}])[0]
    assert set(found["scores"]) == set(row.choices)
    assert found["label"] == max(found["scores"], key=found["scores"].get)
    assert len(set(found["scores"].values())) == len(row.choices)


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_readout_pools_tokens_and_never_rows(tiny, task, kind):
    backbone = tiny(kind)
    model = build_model(run_config(backbone, "split", "linear"), backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    whole = sp.SoftPromptModel(backbone, model.prompt).eval()
    with torch.no_grad():
        scores = score(backbone, [Part(model.prompt, model.readout, batch)])[0]
        output = whole(batch.ids, batch.attention_mask, batch.segments)
    if backbone.family == "decoder":  # with rows behind the input, the last position is a row
        pooled = output.prompt_hidden_state[:, -1]
    else:
        mask = batch.attention_mask[..., None]
        pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    expected = pooled @ model.readout.weight.T + model.readout.bias
    torch.testing.assert_close(scores, expected.detach(), atol=1e-5, rtol=1e-4)
