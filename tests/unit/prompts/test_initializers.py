"""First rows, per initializer."""

from __future__ import annotations

import pytest
import torch
from transformers import AddedToken

from softprompts.errors import PromptError
from softprompts.prompts.initializers.base import InitializerContext
from softprompts.prompts.initializers.vocabulary import ordinary_ids
from softprompts.prompts.registry import INITIALIZERS
from softprompts.storage import write_tensors


def draw(backbone, kind, length=6, words=("good", "bad"), seed=0, **options):
    context = InitializerContext(backbone, words, torch.Generator().manual_seed(seed))
    return INITIALIZERS.load(kind)(**options)(length, context)


def is_row(backbone, row):
    table = backbone.embed(torch.arange(backbone.vocabulary_size)).float()
    return bool((table == row).all(dim=1).any())


@pytest.mark.parametrize("kind", ["bert", "albert", "gpt2", "t5", "bart", "gemma3"])
def test_vocabulary_rows_are_distinct_and_not_special(tiny, kind):
    backbone = tiny(kind)
    rows = draw(backbone, "vocabulary", length=40)
    assert rows.shape == (40, backbone.embedding_size)
    assert rows.dtype == torch.float32
    table = backbone.embed(torch.arange(backbone.vocabulary_size)).float()
    ids = [int((table == row).all(dim=1).nonzero()[0]) for row in rows]
    assert len(set(ids)) == 40
    assert not set(ids) & set(backbone.tokenizer.all_special_ids)
    assert torch.equal(rows, draw(backbone, "vocabulary", length=40))
    assert not torch.equal(rows, draw(backbone, "vocabulary", length=40, seed=1))


def test_added_special_tokens_are_not_drawn_and_move_no_other_draw(tiny, monkeypatch):
    backbone = tiny("gpt2")
    before = draw(backbone, "vocabulary", length=40)
    table = backbone.embed(torch.arange(backbone.vocabulary_size)).float()
    drawn = [int((table == row).all(dim=1).nonzero()[0]) for row in before]
    special = {drawn[3]: AddedToken("<file>", special=True), drawn[5]: AddedToken("x")}
    kind = type(backbone.tokenizer)
    monkeypatch.setattr(kind, "added_tokens_decoder", property(lambda self: special))
    after = draw(backbone, "vocabulary", length=40)
    assert torch.equal(after[:3], before[:3])
    assert torch.equal(after[3:39], before[4:])
    assert drawn[3] not in ordinary_ids(backbone)
    assert drawn[5] in ordinary_ids(backbone)


def test_a_prompt_longer_than_the_vocabulary(tiny):
    backbone = tiny("bert")
    assert draw(backbone, "vocabulary", length=2000).shape[0] == 2000


def test_text_is_cut_or_stands_behind_random_words(tiny):
    backbone = tiny("bert")
    ids = backbone.tokenizer("good bread", add_special_tokens=False)["input_ids"]
    own = backbone.embed(torch.tensor(ids))
    rows = draw(backbone, "text", length=len(ids) + 2, text="good bread")
    assert torch.equal(rows[2:], own)
    assert torch.equal(rows[:2], draw(backbone, "vocabulary", length=2))
    assert torch.equal(draw(backbone, "text", length=1, text="good bread"), own[:1])
    assert draw(backbone, "text", length=0, text="good bread").shape == (0, own.shape[1])
    with pytest.raises(PromptError, match=r"at least one token, but is ' '"):
        draw(backbone, "text", text=" ")


def test_labels_are_mean_embeddings_then_vocabulary(tiny):
    backbone = tiny("bert")
    rows = draw(backbone, "labels", length=4, words=("good", "hard to say"))
    for row, words in enumerate(("good", "hard to say")):
        ids = backbone.tokenizer(words, add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(rows[row], backbone.embed(torch.tensor(ids)).mean(0))
    assert is_row(backbone, rows[2])
    assert is_row(backbone, rows[3])
    assert draw(backbone, "labels", length=1).shape[0] == 1
    with pytest.raises(PromptError, match="must not be 'labels'"):
        draw(backbone, "labels", words=())


def test_uniform_stays_in_its_range(tiny):
    rows = draw(tiny("bert"), "uniform", length=500, range=0.2)
    assert 0.19 < rows.abs().max() <= 0.2
    assert abs(float(rows.mean())) < 0.01


def test_normal_has_the_tables_moments(tiny):
    backbone = tiny("bert")
    rows = draw(backbone, "normal", length=20000)
    table = backbone.embed(torch.arange(backbone.vocabulary_size)).float()
    torch.testing.assert_close(rows.mean(0), table.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(rows.std(0), table.std(0), atol=0.02, rtol=0)


def test_file_is_read_exactly_and_checked(tiny, tmp_path):
    backbone = tiny("bert")
    rows = torch.randn(6, backbone.embedding_size)
    write_tensors(tmp_path / "prompt.safetensors", {"rows": rows})
    for path in (tmp_path, tmp_path / "prompt.safetensors"):
        assert torch.equal(draw(backbone, "file", path=str(path)), rows)
    with pytest.raises(PromptError, match=r"must have shape \(5, 32\), but have \(6, 32\)"):
        draw(backbone, "file", length=5, path=str(tmp_path))
    write_tensors(tmp_path / "other.safetensors", {"weights": rows})
    with pytest.raises(PromptError, match=r"must hold a tensor 'rows', but holds \['weights'\]"):
        draw(backbone, "file", path=str(tmp_path / "other.safetensors"))


def test_rows_of_a_file_may_be_snapped_to_the_nearest_tokens(tiny, tmp_path):
    backbone = tiny("gpt2")
    special = set(backbone.tokenizer.all_special_ids)
    known = min(len(backbone.tokenizer), backbone.vocabulary_size)
    ids = [i for i in range(known) if i not in special]
    table = backbone.embed(torch.tensor(ids)).float()
    rows = torch.randn(5, backbone.embedding_size) * table.std()
    write_tensors(tmp_path / "prompt.safetensors", {"rows": rows})
    found = draw(backbone, "file", length=5, path=str(tmp_path), is_snapped=True)
    nearest = torch.cdist(rows, table).argmin(dim=1)
    assert torch.equal(found, table[nearest])


def test_a_text_that_is_not_given_is_the_tasks_instruction_or_its_label_words(tiny):
    backbone = tiny("bert")

    def begin(text=None, words=("good", "bad"), instruction=""):
        made = INITIALIZERS.load("text")(text)
        seeded = torch.Generator().manual_seed(0)
        return made(3, InitializerContext(backbone, words, seeded, instruction))

    assert torch.equal(begin(instruction="good bread"), begin("good bread"))
    assert torch.equal(begin("bad bread", instruction="good bread"), begin("bad bread"))
    assert torch.equal(begin(), draw(backbone, "labels", length=3))
    assert torch.equal(begin(words=()), draw(backbone, "vocabulary", length=3))
