"""What is no input: refused with its place, its field and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import softprompts as sp
from contracts.conftest import run_config
from softprompts.backbones.loading import load_backbone
from softprompts.errors import DataError, PromptError, RegistryError, SoftPromptsWarning
from softprompts.examples import Example
from softprompts.interop.peft import export_peft
from softprompts.metrics import classification
from softprompts.prompts.initializers.base import Initializer
from softprompts.prompts.registry import INITIALIZERS, ROWS
from softprompts.prompts.rows.plain import PlainRows
from softprompts.registry import Registry
from softprompts.regularizers.base import Penalty, Regularizer
from softprompts.regularizers.registry import REGULARIZERS
from softprompts.results import Result
from softprompts.training.execution import execute


@pytest.fixture(scope="module")
def result(tiny, tasks):
    """Return a prompt for a task with labels and one field."""
    backbone = tiny("bert")
    config = run_config(backbone, "prompt-tuning", "linear", steps=1)
    return Result.of(execute(config, backbone, own(tasks["one"])))


def own(task):
    """Return a task that is read by one field."""
    return replace(task, format=replace(task.format, templates={"linear": "{text}"}))


WHOLE = {
    "text": ("cold", "inputs: must be a list of inputs, but is 'cold'"),
    "a mapping": ({"text": "cold"}, "inputs: must be a list of inputs, but is {'text': 'cold'}"),
    "bytes": (b"cold", "must be a list of inputs, but is b'cold'"),
    "a number": (5, "must be a list of inputs, but is 5"),
}
ONE = {
    "nothing": (None, "input 2: must be a string or a mapping, but is None"),
    "a number": (5, "input 2: must be a string or a mapping, but is 5"),
    "bytes": (b"a", "input 2: must be a string or a mapping, but is b'a'"),
    "a number as a field": ({5: "a"}, "input 2: names of fields must be text, but one is 5"),
    "half a pair": ("\ud800", "input 2, field `text`: must be valid Unicode, but has half a pair"),
    "half a pair in a mapping": ({"text": "a\udc80"}, "field `text`: must be valid Unicode"),
    "nothing in it": ({}, "input 2, field `text`: must be given, but is missing"),
    "choices for labels": (
        {"text": "a", "choices": ["x", "y"]},
        r"input 2, field `choices`: must be left out.*but is \['x', 'y'\]",
    ),
}
CHOICES = {
    "a number": (5, "input 1, field `choices`: must be a list of at least one text, but is 5"),
    "text": ("xy", "field `choices`: must be a list of at least one text, but is 'xy'"),
    "numbers": (["x", 7], r"input 1, field `choices\[1\]`: must be text, but is 7"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_inputs_must_be_a_list(result, name):
    given, text = WHOLE[name]
    with pytest.raises(DataError, match=text):
        result.predict(given)


@pytest.mark.parametrize("name", ONE)
def test_a_wrong_input_is_named(result, name):
    given, text = ONE[name]
    with pytest.raises(DataError, match=text):
        result.predict(["fine", given])


@pytest.mark.parametrize("name", CHOICES)
def test_wrong_choices_are_named(tiny, choice_task, name):
    backbone = tiny("bert")
    config = run_config(backbone, "prompt-tuning", "linear", steps=1)
    result = Result.of(execute(config, backbone, choice_task))
    given, text = CHOICES[name]
    with pytest.raises(DataError, match=text):
        result.predict([{"text": "a", "choices": given}])
    assert result.predict([{"text": "a", "choices": ("x", "y")}])[0] in ("x", "y")


def test_inputs_may_come_one_by_one(result):
    expected = result.predict(["fine", "cold"])
    assert result.predict({"text": text} for text in ("fine", "cold")) == expected


def test_inputs_may_be_numbers_as_in_files_and_other_columns_do_not_matter(result):
    expected = result.predict_scores(["7", "0.5"])
    assert result.predict_scores([{"text": 7, "more": [1]}, {"text": 0.5, "id": None}]) == expected
    with pytest.raises(DataError, match="input 1, field `text`: must be text, but is inf"):
        result.predict([{"text": float("inf")}])


def test_a_data_frame_is_read_by_rows(result):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [1, 2, 3], "text": ["fine", "cold", "warm"]})
    assert result.predict(frame) == result.predict(["fine", "cold", "warm"])


@pytest.mark.parametrize(
    ("example", "text"),
    [
        (Example({"text": "a"}), "example 1, field `answers`: must be given, but are none"),
        (Example({"text": "a"}, 1), "example 1: must be an Example with its answers, but is"),
        (Example({"text": "a"}, (7,)), "example 1, field `answers`: must be places of .*has 7"),
    ],
)
def test_examples_without_right_answers_are_not_scored(result, example, text):
    with pytest.raises(DataError, match=text):
        result.evaluate([example])


def test_a_task_is_no_backbone_and_a_folder_no_result(tiny, task, tmp_path):
    with pytest.raises(
        DataError, match=r"`result` must be a Result, as sp.load returns, but is 'a'"
    ):
        export_peft("a", tmp_path / "out")
    with pytest.raises(sp.BackboneError, match="must be what load_backbone returns") as caught:
        sp.load(tmp_path, tiny("bert").model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), -1.0, 37.0, None, "x"])
def test_a_metric_that_is_no_share_is_named_before_training(
    tiny, task, tmp_path, monkeypatch, value
):
    monkeypatch.setattr(classification, "macro_f1", lambda *given: value)
    own = replace(task, format=replace(task.format, metrics=("macro-f1",)))
    with pytest.raises(DataError, match="metric 'macro-f1' must return a share from 0 to 1, but"):
        sp.train(tiny("bert"), own, training=sp.TrainingConfig(steps=1), out=tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_metric_may_return_any_kind_of_number(tiny, task, tmp_path, monkeypatch):
    monkeypatch.setattr(classification, "macro_f1", lambda *given: torch.tensor(0.5))
    own = replace(task, format=replace(task.format, metrics=("macro-f1",)))
    few = sp.TrainingConfig(steps=1, num_evaluations=1)
    assert sp.train(tiny("bert"), own, training=few, out=tmp_path / "run").score == 0.5


def rows_of(make):
    """Return a kind of plain rows that returns something else."""

    class Own(PlainRows):
        def forward(self, generator=None):
            return make(super().forward(generator))

    return Own


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda rows: rows[1:],
            r"rows 'plain' must return a tensor of shape \(4, hidden\).* \(3, ",
        ),
        (lambda rows: rows[None], r"must return a tensor of shape \(4, hidden\), but .* \(1, 4, "),
        (lambda rows: None, "but returned None"),
        (lambda rows: rows.detach(), "rows 'plain' must depend on their parameters, but do not"),
    ],
)
def test_rows_of_a_wrong_shape_or_without_a_gradient_are_named(tiny, task, monkeypatch, make, text):
    monkeypatch.setattr(ROWS, "load", lambda name: rows_of(make))
    with pytest.raises(PromptError, match=text):
        sp.train(tiny("bert"), task, prompt=sp.PromptConfig(length=4, unit="absolute"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda rows: rows[1:],
            r"initializer 'normal' must return .* \(4, \d+\), but returned \(3, ",
        ),
        (lambda rows: rows[:, 1:], r"initializer 'normal' must return a tensor of shape"),
        (lambda rows: rows.numpy(), r"must return a tensor of shape .*, but returned array"),
    ],
)
def test_initial_rows_of_a_wrong_shape_are_named(tiny, task, monkeypatch, change, text):
    class Own(Initializer):
        def __init__(self):
            pass

        def __call__(self, length, context):
            return change(torch.zeros(length, context.backbone.embedding_size))

    monkeypatch.setattr(INITIALIZERS, "load", lambda name: Own)
    config = sp.PromptConfig(length=4, initializer="normal")
    with pytest.raises(PromptError, match=text):
        sp.train(tiny("bert"), task, prompt=config)


def test_initial_rows_may_be_of_another_precision(tiny, task, monkeypatch):
    class Own(Initializer):
        def __init__(self):
            pass

        def __call__(self, length, context):
            return torch.ones(length, context.backbone.embedding_size, dtype=torch.bfloat16)

    monkeypatch.setattr(INITIALIZERS, "load", lambda name: Own)
    model = sp.SoftPromptModel(tiny("bert"), sp.PromptConfig(length=4, initializer="normal"))
    assert model.prompt.bake().eq(1).all()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            lambda batch: Penalty(torch.zeros(batch + 1)),
            r"with values of shape \(2,\), but is \(3,\)",
        ),
        (lambda batch: Penalty(torch.zeros(())), r"with values of shape \(2,\), but is \(\)"),
        (lambda batch: torch.zeros(batch), r"must be a Penalty with values .*, but is tensor"),
    ],
)
def test_a_penalty_that_is_none_of_each_example_is_named(tiny, task, monkeypatch, values, text):
    class Own(Regularizer):
        def __init__(self, backbone, **options):
            super().__init__(backbone, **options)

        def penalty(self, seen):
            return values(2)

    monkeypatch.setattr(REGULARIZERS, "load", lambda name: Own)
    few = sp.TrainingConfig(steps=1, batch_size=2)
    with pytest.raises(PromptError, match=text):
        sp.train(tiny("bert"), task, regularizers=[{"kind": "row-norm"}], training=few)


def test_a_word_without_its_parts_is_refused(tmp_path):
    wrong = Registry("thing")
    wrong.register("own", "softprompts.errors:Nope")
    with pytest.raises(
        RegistryError, match=r"thing 'own' must load from softprompts.errors:Nope, "
    ):
        wrong.load("own")


def test_a_wrong_task_is_refused_before_training(tiny, task, tmp_path):
    backbone = tiny("bert")
    wrong = replace(task, train=(replace(task.train[0], answers=(7,)), *task.train[1:]))
    with pytest.raises(DataError, match="row 0, field `answers`: must be columns from 0 to 2"):
        sp.train(backbone, wrong, out=tmp_path / "run")
    config = run_config(backbone, "prompt-tuning", "linear", steps=1)
    with pytest.raises(DataError, match="row 0, field `answers`: must be columns from 0 to 2"):
        execute(config, backbone, wrong, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_in_the_place_of_what_is_loaded_are_refused(tiny, task, tmp_path):
    text = "`backbone` must be what load_backbone returns, but is"
    with pytest.raises(sp.BackboneError, match=f"{text} 'minilm'"):
        sp.train("minilm", task)
    with pytest.raises(sp.BackboneError, match=f"{text} 5"):
        sp.load(tmp_path, 5)
    text = "must be what load_task returns, or a Task, but is 'bundled/sentiment'"
    with pytest.raises(DataError, match=f"`task` {text}"):
        sp.train(tiny("bert"), "bundled/sentiment")
    with pytest.raises(DataError, match=f"`two` {text}"):
        sp.train(tiny("bert"), {"one": task, "two": "bundled/sentiment"})


IDS = torch.tensor([[5, 6, 7], [5, 6, 1]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])
TOKENS = {
    "ids in one dimension": ((IDS[0],), r"`input_ids` .*, but is of shape \(3,\)"),
    "no inputs": ((IDS[:0],), r"`input_ids` .* neither of them 0, but is of shape \(0, 3\)"),
    "no tokens": ((IDS[:, :0],), r"`input_ids` .*, but is of shape \(2, 0\)"),
    "ids that are floats": ((IDS.float(),), "`input_ids` .* whole numbers, but is torch.float32"),
    "lists": (([[5, 6]],), "`input_ids` must be a tensor of whole numbers, but is list"),
    "a mask of one": ((IDS, MASK[:1]), r"`attention_mask` .* \(2, 3\), but is \(1, 3\)"),
    "a mask to be added": ((IDS, (MASK - 1) * 1e4), "`attention_mask` must be 1 or 0.*-10000"),
    "float segments": ((IDS, MASK, MASK.float()), "`token_type_ids` .*but is torch.float32"),
}


@pytest.mark.parametrize("name", TOKENS)
def test_what_is_no_batch_of_token_ids_is_refused(tiny, name):
    model = sp.SoftPromptModel(tiny("gpt2"), with_logits=True)
    given, text = TOKENS[name]
    for read in (model, model.generate):
        if read is model or len(given) < 3:  # `generate` takes segments by name
            with pytest.raises(DataError, match=text):
                read(*given)


def test_a_mask_may_be_of_any_dtype(tiny):
    model = sp.SoftPromptModel(tiny("bert")).eval()
    expected = model(IDS, MASK).last_hidden_state
    for dtype in (torch.float32, torch.bool, torch.int32):
        assert torch.equal(model(IDS, MASK.to(dtype)).last_hidden_state, expected)


@pytest.mark.parametrize("method", ["lora", "fine-tuning", "head-only", "in-context"])
def test_a_method_without_a_prompt_makes_no_model(tiny, method):
    with pytest.raises(PromptError, match=f"`prompt.method` .*, but is '{method}': sp.train"):
        sp.SoftPromptModel(tiny("bert"), sp.PromptConfig(method=method))


def test_a_backbone_loaded_by_a_path_trains(backbone_folder, tasks):
    backbone = load_backbone(backbone_folder("bert"))
    data = replace(own(tasks["one"]), validation=own(tasks["one"]).validation[-1:])
    with pytest.warns(SoftPromptsWarning, match="1 of 1 validation rows of custom .* row 7"):
        result = sp.train(backbone, data, training=sp.TrainingConfig(steps=1))
    assert 0 <= result.score <= 1
