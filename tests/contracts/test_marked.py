"""Rows at marked places of a template, on every architecture."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
import torch

import softprompts as sp
from backbones import KINDS
from contracts.conftest import covering, run_config
from contracts.test_contracts import READOUTS, family_of, fixed, scored_alike, tokens_of, wake
from contracts.test_packs import READOUT, member
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.encoding.template import parse_template
from softprompts.errors import DataError, PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.marked import MarkedPosition
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.rows.plain import PlainRows
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.tasks.templates import with_template
from softprompts.training.building import build_model
from softprompts.training.evaluation import score_examples
from softprompts.training.execution import execute
from softprompts.training.forward import Part, score
from softprompts.training.pack import train_pack

HEADED = {"encoder": "cloze", "decoder": "text", "encoder-decoder": "text"}
THREE = {
    "linear": "{prompt} {text} {prompt} {sep} {aspect} {prompt}",
    "cloze": "{prompt} {text} {prompt} {sep} the {aspect} was {prompt} {mask}.",
    "text": "{prompt} {text} {prompt} {sep} the {aspect} {prompt} was",
}
CELLS = [(kind, readout) for kind in KINDS for readout in READOUTS[family_of(kind)]]


def marked_config(backbone, readout, template, position=None, method="prompt-tuning", **prompt):
    """Return a resolved run whose rows stand at the marks of a template."""
    data = run_config(backbone, method, readout).model_dump(mode="json")
    data["task"]["template"] = template
    data["prompt"] |= {"position": {"kind": "marked", **(position or {})}, **prompt}
    return resolve(parse_run(data))


def read_by(task, template):
    return replace(task, format=with_template(task.format, template))


def built(backbone, task, readout, template, **more):
    """Return a marked model and the encoded rows of a task."""
    format = with_template(task.format, template)
    model = build_model(marked_config(backbone, readout, template, **more), backbone, format)
    return model, [model.readout.encode(row) for row in task.train]


@pytest.mark.parametrize(
    ("kind", "readout", "split"),
    covering([(*cell, split) for cell in CELLS for split in (4, 1, 0)]),
)
def test_marks_at_the_ends_are_the_fixed_split(tiny, task, kind, readout, split):
    backbone = tiny(kind)
    plain = task.format.templates[readout]
    template = {4: f"{{prompt}} {plain}", 1: f"{{prompt}} {plain} {{prompt}}"}
    template = template.get(split, f"{plain} {{prompt}}")
    counts = [1, 3] if split == 1 else None
    model, encoded = built(backbone, task, readout, template, position={"counts": counts})
    data = run_config(backbone, "prompt-tuning", readout).model_dump(mode="json")
    data["prompt"]["position"] = {"kind": "fixed", "split": split}
    other = build_model(resolve(parse_run(data)), backbone, task.format)
    expected, _ = score_examples(
        backbone, other.prompt, other.readout, [other.readout.encode(row) for row in task.train]
    )
    assert score_examples(backbone, model.prompt, model.readout, encoded)[0] == expected


def written(item, words):
    """Return an input with tokens written at its marks, as rows would stand there."""
    ids, segments, roles, places = [], [], [], []
    waiting = list(zip(item.marks, words, strict=True))
    for place in range(len(item.ids) + 1):
        while waiting and waiting[0][0] == place:
            tokens = waiting.pop(0)[1]
            ids += tokens
            segments += [item.segments[min(place, len(item.ids) - 1)]] * len(tokens)
            roles += [item.roles[0]] * len(tokens)
        if place < len(item.ids):
            places.append(len(ids))
            ids.append(item.ids[place])
            segments.append(item.segments[place])
            roles.append(item.roles[place])
    return replace(
        item,
        ids=tuple(ids),
        segments=tuple(segments),
        roles=tuple(roles),
        slots=tuple(places[slot] for slot in item.slots),
        marks=(),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_to_tokens_are_those_tokens_written_at_the_marks(tiny, task, kind):
    backbone = tiny(kind)
    readout = HEADED[family_of(kind)]
    words = [tokens_of(backbone, text) for text in ("a good walk", "the river", "in the evening")]
    rows = backbone.embed(torch.tensor([*chain(*words)])).float()
    model, encoded = built(backbone, task, readout, THREE[readout], length=len(rows))
    position = MarkedPosition(len(rows), counts=[len(part) for part in words])
    marked = Prompt(PlainRows(rows, torch.Generator()), position)
    bare = fixed(torch.zeros(0, backbone.embedding_size))
    as_text = [
        replace(example, inputs=tuple(written(item, words) for item in example.inputs))
        for example in encoded
    ]
    pad = backbone.tokenizer.pad_token_id
    with torch.no_grad():
        found = score(backbone, [Part(marked, model.readout, collate(encoded, pad))])[0]
        expected = score(backbone, [Part(bare, model.readout, collate(as_text, pad))])[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    moved = Prompt(PlainRows(rows.flip(0), torch.Generator()), position)
    with torch.no_grad():
        other = score(backbone, [Part(moved, model.readout, collate(encoded, pad))])[0]
    assert (other - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_words_in_place_of_marks_are_the_same_text(tiny, task, kind):
    """Tokens written at the marks are what the tokenizer makes of the words in the template."""
    backbone = tiny(kind)
    model, _ = built(backbone, task, "linear", "{text} {prompt} so {prompt} {aspect}")
    tokenization = model.readout.tokenization
    for row in task.train:
        ((item,),) = [model.readout.encode(row).inputs]
        whole, _ = tokenization.encode(
            parse_template("{text} good walk so the river {aspect}"), row.fields
        )
        words = [tokenization.words("good walk"), tokenization.words("the river")]
        assert written(item, words).ids == whole.ids


@pytest.mark.parametrize(("kind", "readout"), CELLS)
def test_a_batch_scores_as_one_by_one(tiny, task, kind, readout):
    backbone = tiny(kind)
    model, encoded = built(backbone, task, readout, THREE[readout], position={"counts": [1, 1, 2]})
    joint = scored_alike(model, encoded)
    assert joint.std(dim=0).min() > 1e-4


@pytest.mark.parametrize(
    ("kind", "readout", "method"),
    covering(
        [
            (*cell, method)
            for cell in CELLS
            for method in ("prompt-tuning", "p-tuning", "adap-len")
            if cell[0] != "deberta-v2" or method != "adap-len"  # it has no gates
        ]
    ),
)
def test_every_trainable_number_is_trained(tiny, task, kind, readout, method):
    backbone = tiny(kind)
    model, encoded = built(backbone, task, readout, THREE[readout], method=method)
    wake(model)
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    draws = Draws(0, 0, 0, batch.examples, len(encoded))
    scores = score(backbone, [Part(model.prompt, model.readout, batch, draws)])[0]
    weights = torch.arange(1.0, scores.numel() + 1).view_as(scores)
    (model.readout.loss(scores, batch).sum() + (scores * weights).sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters)


@pytest.mark.parametrize(("kind", "readout"), covering(CELLS, 1))
def test_save_and_load_is_exact(tiny, task, tmp_path, kind, readout):
    backbone = tiny(kind)
    config = marked_config(backbone, readout, THREE[readout])
    mine = read_by(task, THREE[readout])
    result = sp.Result.of(execute(config, backbone, mine, folder=tmp_path / "run"))
    assert result.summary["status"] == "finished"
    result.save(tmp_path / "saved")
    inputs = [dict(row.fields) for row in task.validation]
    expected = result.predict_scores(inputs)
    for folder in ("run", "saved"):
        loaded = sp.load(tmp_path / folder, backbone)
        assert loaded.format.templates[readout] == THREE[readout]
        assert loaded.predict_scores(inputs) == expected


@pytest.mark.parametrize("kind", READOUT)
def test_a_pack_of_marked_and_unmarked_runs_equals_single_runs(tiny, task, kind):
    backbone, readout = tiny(kind), READOUT[kind]
    two = THREE[readout].replace("{prompt} ", "", 1)
    runs = [
        (marked_config(backbone, readout, THREE[readout]), read_by(task, THREE[readout])),
        (run_config(backbone, "split", readout), task),
        (marked_config(backbone, readout, two, method="adap-len"), read_by(task, two)),
    ]
    alone = [member(config, backbone, own) for config, own in runs]
    for single in alone:
        train_pack(backbone, [single])
    together = [member(config, backbone, own) for config, own in runs]
    first = [m.model.bake() for m in together]
    train_pack(backbone, together)
    for single, packed, start in zip(alone, together, first, strict=True):
        assert not torch.equal(packed.model.bake(), start)
        torch.testing.assert_close(packed.model.bake(), single.model.bake(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_choices_of_their_own_take_marks_too(tiny, choice_task, kind):
    backbone = tiny(kind)
    for readout in READOUTS[family_of(kind)]:
        template = {
            "linear": "{text} because {prompt} {choice}",
            "cloze": "{prompt} {text} because {prompt} {mask}.",
            "text": "{prompt} {text} {prompt} because",
        }[readout]
        config = marked_config(backbone, readout, template)
        outcome = execute(config, backbone, read_by(choice_task, template))
        result = sp.Result.of(outcome)
        row = choice_task.validation[1]
        (found,) = result.predict_scores([{**row.fields, "choices": list(row.choices)}])
        assert set(found["scores"]) == set(row.choices)
        assert len(set(found["scores"].values())) == len(row.choices)


def test_marks_that_do_not_fit_are_said_when_a_run_is_built(tiny, task):
    backbone = tiny("bert")
    template = "{prompt} {text} {prompt}"
    own = read_by(task, template)
    marked = run_config(backbone, "prompt-tuning", "linear").model_dump(mode="json")
    unmarked = resolve(parse_run(marked))
    with pytest.raises(
        PromptError, match=r"text} {prompt}' must have `{prompt}` 0 times .* has it 2"
    ):
        build_model(unmarked, backbone, own.format)
    marked["prompt"]["position"] = "marked"
    config = resolve(parse_run(marked))
    with pytest.raises(
        PromptError, match=r"'{text} {sep} {aspect}' must have `{prompt}` at least on"
    ):
        build_model(config, backbone, task.format)
    assert build_model(config, backbone, own.format).prompt.position.needs_marks
    marked["prompt"]["position"] = {"kind": "marked", "counts": [1, 1, 2]}
    config = resolve(parse_run(marked))
    with pytest.raises(PromptError, match=r"each of the 2 .* but is \[1, 1, 2\]"):
        build_model(config, backbone, own.format)


def test_a_task_with_another_template_than_the_recipe_is_refused(tiny, task):
    backbone = tiny("bert")
    config = marked_config(backbone, "linear", "{prompt} {text}")
    with pytest.raises(DataError, match=r"'{prompt} {text}', but its template is '{text} {sep}"):
        build_model(config, backbone, task.format)


def test_a_model_without_templates_has_no_marks(tiny):
    backbone = tiny("bert")
    with pytest.raises(
        PromptError, match=r"`prompt.position` must .* such as fixed, but is marked"
    ):
        sp.SoftPromptModel(backbone, sp.PromptConfig(length=2, position="marked"))
    rows = PlainRows(torch.zeros(2, backbone.embedding_size), torch.Generator())
    with pytest.raises(
        PromptError, match=r"`prompt.position` must .* such as fixed, but is marked"
    ):
        sp.SoftPromptModel(backbone, Prompt(rows, MarkedPosition(2)))


def test_an_example_without_marks_is_refused_when_it_is_read(tiny, task):
    backbone = tiny("bert")
    model, encoded = built(backbone, task, "linear", THREE["linear"])
    bare = EncodedExample((replace(encoded[0].inputs[0], marks=()),), 3, (0,), False)
    batch = collate([bare], backbone.tokenizer.pad_token_id)
    with pytest.raises(PromptError, match="at least once with position marked, but has it 0 times"):
        score(backbone, [Part(model.prompt, model.readout, batch)])
