"""The revision of a hub id: passed on, part of the identity, refused for all else."""

from __future__ import annotations

import shutil

import pytest
from backbone_damage import assert_refused

import softprompts as sp
from softprompts.errors import RecipeError
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.training.resources import Resources

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def run(**backbone):
    return parse_run(
        {
            "backbone": {"name": "owner/tiny-model", **backbone},
            "prompt": {"unit": "absolute"},
            "task": {"name": "bundled/sentiment"},
        }
    )


@pytest.fixture
def hub(monkeypatch, backbone_folder, tmp_path):
    """A hub's cache with two revisions of one model, out of reach of the network."""
    repository = tmp_path / "models--owner--tiny-model"
    (repository / "refs").mkdir(parents=True)
    for ref, commit, kind in (("main", "f" * 40, "gpt2"), ("v2", COMMIT, "bert")):
        shutil.copytree(backbone_folder(kind), repository / "snapshots" / commit)
        (repository / "refs" / ref).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("revision", "family"), [(None, "decoder"), ("v2", "encoder"), (COMMIT, "encoder")]
)
def test_a_revision_is_what_is_loaded(hub, revision, family):
    assert sp.load_backbone("owner/tiny-model", revision=revision).family == family
    assert Resources().backbone(run(revision=revision).backbone).revision == revision


def test_an_unknown_revision_is_named(hub):
    text = "but is 'owner/tiny-model' at revision 'v3'. From the hub: "
    assert_refused(text, "owner/tiny-model", revision="v3")


def test_only_hub_ids_have_one(backbone_folder, tmp_path):
    folder = backbone_folder("bert")
    (tmp_path / "model.gguf").touch()
    for name, kind in (
        ("minilm", "a short name"),
        (folder, "a local folder"),
        (tmp_path / "model.gguf", "a file"),
    ):
        assert_refused(f"which is {kind}: only hub ids have revisions", name, revision="main")
    with pytest.raises(RecipeError, match=r"must be left out for 'minilm', .* but is 'main'"):
        run(name="minilm", revision="main")


def test_a_revision_is_part_of_the_identity_and_none_is_not():
    plain, named = run(), run(revision="v2")
    assert identity(named) != identity(plain)
    assert identity(plain) == "5ebe998bcdc65850"


def test_a_run_from_python_says_its_revision(hub, tmp_path):
    backbone = sp.load_backbone("owner/tiny-model", revision="v2")
    task = sp.load_task("bundled/sentiment", shots=2)
    training = sp.TrainingConfig(steps=1, batch_size=2)
    result = sp.train(backbone, task, training=training, out=tmp_path / "run")
    assert result.config.backbone.revision == "v2"
    assert sp.load(tmp_path / "run").backbone.revision == "v2"
