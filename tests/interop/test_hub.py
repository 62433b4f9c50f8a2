"""Prompts on the hub: pushed with a card, loaded by name, by huggingface_hub's own client."""

from __future__ import annotations

import json

import pytest
import yaml

import softprompts as sp
from softprompts.errors import StorageError
from softprompts.examples import Example, TaskFormat
from softprompts.hub_transfer import is_hub_name
from softprompts.interop.hub import card, push
from softprompts.tasks.base import Task

FORMAT = TaskFormat("moods", 1, ("bad", "good"), {"linear": "{text}"}, {}, ("accuracy",))
WORDS = ("awful", "fine", "grim", "lovely")
ROWS = tuple(
    Example({"text": f"it was {w} {n}"}, (k % 2,)) for n in range(6) for k, w in enumerate(WORDS)
)

PUSH = """
import sys, softprompts as sp
result = sp.load(sys.argv[1])
print(result.push_to_hub(sys.argv[2], scores=[0.5, 0.75], token="hf_none"))
"""
LOAD = """
import sys, json, softprompts as sp
found = sp.load(sys.argv[1])
print(json.dumps([repr(found), found.predict_scores(["it was fine", "it was grim"])]))
"""


@pytest.fixture(scope="module")
def result(tiny):
    training = sp.TrainingConfig(steps=3, batch_size=4, selection="last", num_evaluations=1)
    return sp.train(tiny("bert"), Task(FORMAT, ROWS[:16], (), ROWS[16:]), training=training)


@pytest.mark.parametrize("is_ensemble", [False, True])
def test_what_is_pushed_comes_back_to_the_bit(result, tmp_path, hub_elsewhere, is_ensemble):
    prompt = sp.ensemble([result, again(result)]) if is_ensemble else result
    prompt.save(tmp_path / "kept")
    name = f"me/moods-{is_ensemble}"
    pushed, error = hub_elsewhere.run(PUSH, str(tmp_path / "kept"), name)
    assert pushed.strip() == f"{hub_elsewhere.address}/{name}/commit/{'0' * 40}", error
    loaded, error = hub_elsewhere.run(LOAD, name)
    assert loaded, error
    text, predictions = json.loads(loaded)
    assert text == repr(prompt)
    assert predictions == prompt.predict_scores(["it was fine", "it was grim"])
    assert any(f"POST /api/models/{name}/commit/main" in line for line in hub_elsewhere.asked)
    files = {str(p.relative_to(hub_elsewhere.root / name)) for p in _files(hub_elsewhere, name)}
    assert "README.md" in files
    assert any(name.endswith("prompt.safetensors") for name in files)


def _files(hub, name):
    return [path for path in (hub.root / name).rglob("*") if path.is_file()]


def again(result):
    """Return the result of another seed."""
    training = sp.TrainingConfig(steps=3, batch_size=4, selection="last", num_evaluations=1)
    task = Task(FORMAT, ROWS[:16], (), ROWS[16:])
    return sp.train(result.backbone, task, training=training, seed=1)


def test_no_place_of_this_machine_is_pushed(result, tmp_path, hub_elsewhere):
    result.save(tmp_path / "kept")
    about = json.loads((tmp_path / "kept" / "config.json").read_text())
    about["config"]["task"]["data_dir"] = "/home/somebody/secret"
    (tmp_path / "kept" / "config.json").write_text(json.dumps(about))
    _, error = hub_elsewhere.run(PUSH, str(tmp_path / "kept"), "me/placeless")
    assert not error
    found = _files(hub_elsewhere, "me/placeless")
    texts = [p.read_text() for p in found if p.suffix in (".json", ".md")]
    assert texts
    assert not [text for text in texts if "secret" in text]


def test_the_card_says_scores_spread_and_recipe(result):
    text = card(result, "me/moods", [0.5, 0.75])
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "softprompts"
    assert front["tags"] == ["soft-prompt", "prompt-tuning"]
    assert f"| {100 * result.score:.1f} |" in text
    assert "| over 2 seeds | 62.5 ± 17.7 |" in text
    assert "| over seeds | not measured |" in card(result, "me/moods")
    assert 'prompt.predict([{"text": "…"}])' in text
    recipe = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
    assert recipe["prompt"]["method"] == "prompt-tuning"


def test_what_is_neither_a_folder_nor_on_the_hub_is_one_line(hub_elsewhere):
    _, error = hub_elsewhere.run(LOAD, "me/absent")
    last = error.strip().splitlines()[-1]
    assert "StorageError: me/absent must be a folder or a prompt of the hub" in last
    assert "404" in last


@pytest.mark.parametrize("name", ["moods", "a/b/c", "me/mo ods", ""])
def test_a_name_that_is_no_repositorys_is_refused(result, name):
    assert not is_hub_name(name)
    with pytest.raises(StorageError, match=rf"`name` must be owner/name, but is '{name}'"):
        push(result, name)
