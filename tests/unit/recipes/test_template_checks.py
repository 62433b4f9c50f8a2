"""`task.template` and the marks in it: what a recipe alone can tell."""

from __future__ import annotations

import pytest

from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run

NLI = "bundled/entailment"
MARKED = "{prompt} {premise} {prompt} so {hypothesis}"
FILES = {"train": "t.csv", "validation": "v.csv"}
OWN = {"task__name": "files", "task__options": {**FILES, "template": "{a}"}}
OWN_MARK = {"task__name": "files", "task__options": {**FILES, "template": "{text} {prompt}"}}
ONE_MARK = {"task__template": "{prompt} {text}", "prompt__position": "marked"}

RIGHT = [
    {"task__name": NLI, "task__template": MARKED, "prompt__position": "marked"},
    {
        "task__name": NLI,
        "task__template": MARKED,
        "prompt__position": {"kind": "marked", "counts": [7, 3]},
    },
    {"task__name": NLI, "task__template": "{hypothesis} {premise}"},
    {"task__name": "superglue/copa", "task__template": "{premise} {choice}"},
    {"task__name": "custom", "prompt__position": "marked"},
    {
        "task__name": "custom",
        "task__template": "{a} {choice} {prompt}",
        "prompt__position": "marked",
    },
    {**OWN_MARK, "prompt__position": "marked"},
    {**OWN_MARK, "task__template": "{text}"},
]


@pytest.mark.parametrize("fields", RIGHT)
def test_what_fits_is_taken(recipe, problems, fields):
    assert problems(recipe(**fields)) == ()


WRONG = [
    ({"task__template": ""}, "`task.template` must be text of at least 1 character, but is ''."),
    ({"task__template": "{text"}, "`task.template`: template '{text' must have paired braces"),
    ({"task__template": "bare"}, "`task.template`: linear template 'bare' must name at least one"),
    ({"task__template": "{text} {mask}"}, "must have {mask} 0 times, but has it 1 times."),
    (
        {"task__template": "{text}", "readout": "cloze"},
        "`task.template`: cloze template '{text}' must have {mask} 1 times, but has it 0 times.",
    ),
    (
        {"task__name": "superglue/copa", "task__template": "{premise}"},
        "must have {choice} 1 times, but has it 0 times.",
    ),
    (
        {**OWN, "task__template": "b"},
        "linear template 'b' must name at least one field.",
    ),
    (
        {"task__name": "custom", "task__template": "{a}{sep}{b}{sep}{c}"},
        "must have {sep} 0 or 1 times, but has it 2 times.",
    ),
    (
        {"task__template": "{text} {prompt}"},
        "template '{text} {prompt}' must have `{prompt}` 0 times unless position is marked",
    ),
    (
        {"task__template": "{prompt} {text} {prompt}", "prompt__method": "adap-pos"},
        "since nothing else puts rows there, but has it 2 times.",
    ),
    (
        {"task__template": "{text} {prompt}", "prompt__method": "head-only"},
        "unless position is marked, since nothing else puts rows there, but has it 1 times.",
    ),
    (
        {"task__template": "{text} {prompt}", "prompt__method": "p-tuning-v2"},
        "unless position is marked, since nothing else puts rows there, but has it 1 times.",
    ),
    (
        {"prompt__position": "marked"},
        "`task.template` is null, and bundled/sentiment's own template must have `{prompt}` at",
    ),
    (
        {"task__template": "{text}", "prompt__position": "marked"},
        "template '{text}' must have `{prompt}` at least once with position marked, but has it 0",
    ),
    (
        {**OWN, "prompt__position": "marked"},
        "template '{a}' must have `{prompt}` at least once with position marked, but has it 0",
    ),
    (
        {
            "task__name": "files",
            "task__options": {**FILES, "templates": {"linear": "{a} {prompt}"}},
        },
        "template '{a} {prompt}' must have `{prompt}` 0 times unless position is marked",
    ),
    (
        {"prompt__position": {"kind": "marked", "counts": [4, 5]}, "task__name": "custom"},
        "`prompt.position.counts` must be at least 0 each and add up to `prompt.length`, 10, but",
    ),
    (
        {"prompt__position": {"kind": "marked", "counts": [-1]}},
        "`prompt.position.counts.0` must be at least 0, but is -1.",
    ),
    (
        {**ONE_MARK, "prompt__position": {"kind": "marked", "counts": [4, 5]}},
        "`prompt.position.counts` must be at least 0 each and add up to `prompt.length`, 10, but",
    ),
    (
        {**ONE_MARK, "prompt__position": {"kind": "marked", "counts": [4, 6]}},
        "for each of the 1 `{prompt}` of template '{prompt} {text}', but is [4, 6].",
    ),
    (
        {
            "task__template": "{prompt} {text} {prompt}",
            "prompt__position": "marked",
            "prompt__length": 1,
        },
        "`prompt.length` must be at least 2, a row for each `{prompt}` of template",
    ),
    (
        {**ONE_MARK, "prompt__depth": "every-layer"},
        "have no place in the input, but is",
    ),
    (
        {**ONE_MARK, "training__temperature": "constant"},
        "`training.temperature` must be left out with a fixed position and length",
    ),
    (
        {**ONE_MARK, "prompt__instance": "embeddings"},
        "`prompt.instance` must be left out where nothing looks at instance vectors",
    ),
]


@pytest.mark.parametrize(("fields", "sentence"), WRONG)
def test_what_does_not_fit_is_one_clear_sentence(recipe, problems, fields, sentence):
    (found,) = problems(recipe(**fields))
    assert sentence in found
    assert "\n" not in found


def test_a_template_is_part_of_the_identity(recipe):
    plain = identity(parse_run(recipe()))
    one, other = (
        identity(parse_run(recipe(task__template=text))) for text in ("{text}", "{text}.")
    )
    assert len({plain, one, other}) == 3
    assert identity(parse_run(recipe(task__template=None))) == plain
