"""Recipes from files and by name, with overrides."""

from __future__ import annotations

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.grid import expand
from softprompts.recipes.identity import identity
from softprompts.recipes.loading import load_recipe, shipped_recipes
from softprompts.recipes.overrides import parse_overrides, set_at
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.study import StudyConfig

RUN = "backbone: {name: minilm}\ntask: {name: bundled/sentiment}\n"
STUDY = """
base:
  backbone: {name: minilm}
  task: {name: bundled/sentiment}
  prompt: {rows: residual}
variants: {a: {prompt.length: 1}, b: }
grid: {training.learning_rate: [1e-1, 1e-2]}
seeds: [3, 4]
"""


SHIPPED_RUNS = {
    "fewglue": 105,
    "language-model": 240,
    "multitask-superglue": 15,
    "precision": 10,
    "presets": 160,
    "presets-fewglue": 240,
    "presets-rte": 80,
    "ptp": 780,
    "ptp-conditions": 240,
    "ptp-readout": 240,
    "quickstart": 28,
    "quickstart-encoder": 21,
    "stability": 300,
    "stable": 40,
    "sweep-bottleneck": 42,
    "sweep-initializer": 72,
    "sweep-learning-rate": 168,
    "sweep-length": 84,
    "sweep-perturbation-weight": 72,
    "sweep-shots": 180,
    "writing": 80,
}


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_right_and_says_what_it_does(name):
    config = load_recipe(name)

    assert shipped_recipes()[name].read_text("utf-8").startswith("# ")
    if isinstance(config, RunConfig):
        assert len(identity(config)) == 16
    else:
        assert config.name == name
        assert len(expand(config)) == SHIPPED_RUNS[name]


def test_shipped_recipes_are_the_documented_ones():
    assert list(shipped_recipes()) == sorted([*SHIPPED_RUNS, "residual-cb"])


def test_a_file_is_read(write):
    config = load_recipe(write("\ufeff" + RUN + "training: {learning_rate: 1e-3}\n"))

    assert isinstance(config, RunConfig)
    assert config.training.learning_rate == 0.001


def test_a_study_file_is_read_and_named_after_it(write):
    study = load_recipe(str(write(STUDY)))

    assert isinstance(study, StudyConfig)
    assert (study.name, study.seeds) == ("mine", (3, 4))
    assert study.variants == {"a": {"prompt.length": 1}, "b": {}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "a recipe must be a mapping, but is empty."),
        ("# only a comment\n", "a recipe must be a mapping, but is empty."),
        ("- a\n- b\n", """a recipe must be a mapping, but is ["a", "b"]."""),
        ("just text", "a recipe must be a mapping, but is 'just text'."),
    ],
)
def test_a_file_without_a_mapping(write, text, sentence):
    path = write(text)

    with pytest.raises(RecipeError, match="a recipe must be a mapping, but is") as caught:
        load_recipe(path)

    assert str(caught.value) == f"{path}: {sentence}"


def test_a_missing_file_lists_the_shipped_recipes(tmp_path):
    with pytest.raises(
        RecipeError,
        match=r"one of fewglue, language-model, multitask-superglue, "
        r"precision, presets, presets-fewglue, presets-rte, ptp, ptp-conditions, ptp-readout, "
        r"quickstart, quickstart-encoder, residual-cb, stability, stable, "
        r"sweep-bottleneck, sweep-initializer, sweep-learning-rate, sweep-length, "
        r"sweep-perturbation-weight, sweep-shots, writing, but",
    ):
        load_recipe("quikstart")
    with pytest.raises(RecipeError, match=r"Did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(RecipeError, match=r"absent\.yaml', which is neither"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match=r"which is neither"):
        load_recipe("")
    with pytest.raises(RecipeError, match=r"a recipe must be a file"):
        load_recipe("a\0b")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match=rf"{tmp_path.name}: .* must be a file, but is a folder"):
        load_recipe(tmp_path)


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("# caf\u00e9".encode("latin-1"))

    with pytest.raises(RecipeError, match="must be UTF-8 text, but byte 5 is not"):
        load_recipe(path)


def test_a_shipped_name_wins_over_a_file_but_a_path_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text(RUN)

    assert isinstance(load_recipe("quickstart"), StudyConfig)
    assert isinstance(load_recipe("./quickstart"), RunConfig)


def test_overrides_set_values_of_every_shape(write):
    config = load_recipe(
        write(RUN),
        [
            "training.learning_rate=1e-1",
            "training.clip_norm=null",
            "prompt.rows.kind=residual",
            "prompt.rows.bottleneck=8",
            "training.optimizer={kind: adafactor, weight_decay: 0.5}",
            "prompt.initializer={kind: text, text: 'a=b: no'}",
            "task.data_dir=",
        ],
    )

    assert config.training.learning_rate == 0.1
    assert config.training.clip_norm is None
    assert config.prompt.rows.options["bottleneck"] == 8
    assert config.training.optimizer.options == {"weight_decay": 0.5}
    assert config.prompt.initializer.options == {"text": "a=b: no"}
    assert config.task.data_dir is None


def test_an_option_can_be_set_on_a_component_given_by_name(write):
    config = load_recipe(write(RUN + "readout: linear\n"), ["readout.pool=cls"])

    assert config.readout.options == {"pool": "cls"}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training", "an override must look like `a.b=value`, but is 'training'"),
        ("=3", "an override must look like `a.b=value`, but is '=3'"),
        ("a..b=3", "an override must look like `a.b=value`, but is 'a..b=3'"),
        ("seed=[1", "`seed`: line 1, column 3: the text must be valid YAML"),
        ("seed=-1", "`seed` must be at least 0, but is -1"),
        ("trainig.steps=1", "`trainig` is an unknown key; did you mean `training`"),
        ("training.step=1", "did you mean `training.steps`"),
        ("regularizers.x=1", "`regularizers.x` must lie in a mapping, but `regularizers` is [{"),
        (
            "regularizers.1.weight=1",
            "must name one of the entries of `regularizers`, but it has 1.",
        ),
        ("backbone.name.x=1", "`backbone.name.x` must lie in a mapping, but `backbone.name` is 'm"),
    ],
)
def test_a_wrong_override_is_one_sentence(write, override, sentence):
    regularizers = "regularizers: [{kind: ptp, perturbation: masking}]\n"
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(RUN + regularizers), [override])

    assert len(caught.value.problems) == 1
    assert sentence in caught.value.problems[0]


def test_an_entry_of_a_list_is_named_by_its_number(write):
    path = write(RUN + "regularizers: [{kind: ptp, perturbation: masking}, row-norm]\n")
    config = load_recipe(path, ["regularizers.0.weight=3", "regularizers.1.weight=0.5"])

    assert [one.options["weight"] for one in config.regularizers] == [3.0, 0.5]
    assert [one.kind for one in config.regularizers] == ["ptp", "row-norm"]
    held = {"regularizers": [{"kind": "ptp"}]}
    changed = dict(held)
    assert set_at(changed, ["regularizers", "0", "weight"], 3) == ""
    assert changed == {"regularizers": [{"kind": "ptp", "weight": 3}]}
    assert held == {"regularizers": [{"kind": "ptp"}]}


def test_an_override_given_twice_is_refused(write):
    with pytest.raises(RecipeError, match=r"`seed` must be overridden once, .* 'seed=2'"):
        load_recipe(write(RUN), ["seed=1", "seed=2"])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("prompt.length=4", "prompt={length: 3}"),
        ("prompt.rows.bottleneck=3", "prompt.rows=residual"),
        ("regularizers.ptp.weight=3", "regularizers=[]"),
        ("prompt.length=4", "base.prompt={length: 3}"),
        ("base.prompt.length=4", "prompt={length: 3}"),
        ("seed=4", "base={}"),
    ],
)
def test_an_override_that_would_undo_another_is_refused(first, second):
    values, (problem,) = parse_overrides([first, second])
    (inner, _), (outer, _) = (text.split("=") for text in (first, second))
    assert list(values) == [inner]
    assert f"`{outer}` must come before `{inner}`, which it would undo, but is given" in problem
    values, problems = parse_overrides([second, first])
    assert (list(values), problems) == ([outer, inner], [])


def test_a_field_of_a_study_is_overridden_once_by_either_name():
    _, (problem,) = parse_overrides(["seed=1", "base.seed=2"])
    assert "`base.seed` must be overridden once, but is given again as 'base.seed=2'" in problem
    assert parse_overrides(["prompt.length=1", "prompt.lengths=2"])[1] == []


def test_problems_of_overrides_and_of_the_recipe_come_together(write):
    with pytest.raises(RecipeError, match="seed") as caught:
        load_recipe(write(RUN + "seed: -1\ntrainig: 3\n"), ["nonsense", "task.shots=0"])

    assert [p.split("`")[1] for p in caught.value.problems] == [
        "a.b=value",
        "task.shots",
        "seed",
        "trainig",
    ]


def test_overrides_of_a_study_reach_base_variants_grid_and_seeds(write):
    study = load_recipe(
        write(STUDY),
        [
            "training.steps=5",
            "base.prompt.rows.bottleneck=6",
            "variants.a.prompt.length=2",
            "variants.c.training.batch_size=4",
            "grid.training.learning_rate=[1]",
            "grid.task.name=[bundled/sentiment, bundled/entailment]",
            "seeds=2",
            "name=other",
        ],
    )
    cells = expand(study)

    assert (study.name, study.seeds) == ("other", (0, 1))
    assert len(cells) == 3 * 1 * 2 * 2
    assert {cell.config.training.steps for cell in cells} == {5}
    assert {cell.config.prompt.rows.options["bottleneck"] for cell in cells} == {6}
    assert cells[0].config.prompt.length == 2
    assert cells[-1].variant == "c"
    assert cells[-1].config.training.batch_size == 4


def test_an_override_that_a_variant_or_the_grid_would_undo_is_refused(write):
    with pytest.raises(RecipeError, match=r"`variants.a` sets `prompt.length` over it"):
        load_recipe(write(STUDY), ["prompt.length=4"])
    with pytest.raises(RecipeError, match=r"override `grid.training.learning_rate`"):
        load_recipe(write(STUDY), ["base.training.learning_rate=4"])


NAMED = """
base: {backbone: {name: minilm}, prompt: {method: prompt-tuning}}
variants: {a: {}}
grid:
  task:
    one: {name: bundled/sentiment, num_items: 9}
    two: {name: bundled/entailment, num_items: 9}
seeds: 1
"""


@pytest.mark.parametrize(
    ("override", "sizes"),
    [
        ("task.num_items=2", [2, 2]),
        ("base.task.num_items=2", [2, 2]),
        ("grid.task.two.num_items=2", [9, 2]),
        ("grid.task.one={name: bundled/sentiment, num_items: 3}", [3, 9]),
    ],
)
def test_an_override_reaches_into_values_of_the_grid(write, override, sizes):
    cells = expand(load_recipe(write(NAMED), [override]))
    assert [cell.config.task.num_items for cell in cells] == sizes


def test_an_override_reaches_into_listed_values_of_the_grid(write):
    listed = NAMED.replace("    one:", "    -").replace("    two:", "    -")
    cells = expand(load_recipe(write(listed), ["task.num_items=2", "grid.task.1.num_items=3"]))
    assert [cell.config.task.num_items for cell in cells] == [2, 3]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("grid.task.two.num_items=3", "task.num_items=2"),
        ("task.num_items=2", "grid.task.one={name: bundled/sentiment}"),
        ("task.num_items=2", "grid={task: [{name: bundled/sentiment}]}"),
    ],
)
def test_an_override_of_the_grid_that_would_undo_another_is_refused(write, first, second):
    names = [one.split("=")[0] for one in (second, first)]
    with pytest.raises(RecipeError, match="`{}` must come before `{}`, which it".format(*names)):
        load_recipe(write(NAMED), [first, second])
    load_recipe(write(NAMED), [second, first])


@pytest.mark.parametrize("field", ["task.num_items", "training.steps"])
def test_a_grid_that_would_undo_an_override_before_it_is_refused(field):
    grid = f"grid.{field.replace('.num_items', '')}"
    _, (problem,) = parse_overrides([f"{field}=1", f"{grid}=[2]"])
    assert f"`{grid}` must come before `{field}`, which it would undo" in problem


def test_overrides_do_not_change_the_shipped_recipe():
    before = load_recipe("residual-cb")
    load_recipe("residual-cb", ["prompt.length=3", "training.batch_size=2"])

    assert load_recipe("residual-cb") == before


RATE = r"`training\.learning_rate` must be left out where there are no rows; .*, but is 0\.001\."


@pytest.mark.parametrize("method", ["lora", "fine-tuning", "head-only"])
def test_a_rate_of_rows_is_refused_where_a_run_has_none(method, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(f"{RUN}prompt: {{method: {method}}}\ntraining: {{learning_rate: 0.001}}\n")
    with pytest.raises(RecipeError, match=RATE):
        load_recipe(file)
    assert load_recipe(file, ["prompt.method=prompt-tuning"]).training.learning_rate == 0.001


def test_a_rate_of_rows_is_refused_of_a_variant_without_and_not_of_a_base_for_others(tmp_path):
    file = tmp_path / "study.yaml"
    lines = "base:\n  backbone: {name: minilm}\n  task: {name: bundled/sentiment}\n"
    lines += "  training: {learning_rate: 0.001}\nvariants:\n  plain:\n"
    file.write_text(f"{lines}  lora: {{prompt.method: lora}}\n")
    lora = expand(load_recipe(file))[-1].config.training
    assert (lora.learning_rate, lora.backbone_learning_rate) == (0.001, 1e-3)
    file.write_text(f"{lines}  lora: {{prompt.method: lora, training.learning_rate: 0.001}}\n")
    with pytest.raises(RecipeError, match=rf"variants\.lora: {RATE}"):
        load_recipe(file)
