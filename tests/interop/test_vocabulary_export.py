"""Rows as words: another program reads from text alone what the library reads."""

from __future__ import annotations

import json

import pytest
import torch
from interop_material import MODELS, TEXTS, served, trained, writer

import softprompts as sp
from backbones import build
from softprompts.errors import BackboneError, DataError, PromptError, RunFolderError
from softprompts.interop import probes
from softprompts.interop.vocabulary import export_vocabulary

AFTER = {"kind": "fixed", "after_bos": True}
KINDS = {
    "gpt2": "fixed",
    "llama": AFTER,
    "qwen3": "fixed",
    "gemma3": AFTER,
    "t5": "fixed",
    "bart": "fixed",
    "bert": "fixed",
    "roberta": "fixed",
}


def answers(about, model, tokenizer, text):
    """Return log-probabilities of the label words' first tokens, by label, from text alone."""
    given = tokenizer(
        about["template"].format(text=text, mask=tokenizer.mask_token),
        add_special_tokens=about["adds_special_tokens"],
        return_tensors="pt",
    )
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        logits = model(**given).logits[0]
    place = -1
    if tokenizer.mask_token is not None and not model.config.is_encoder_decoder:
        place = given["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    return given, logits[place].log_softmax(dim=-1)


@pytest.mark.filterwarnings("ignore:.*tied weights mapping.*")
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_run_that_writes_is_served_as_text(tiny, tmp_path, kind):
    result = writer(tiny(kind), position=KINDS[kind])
    about = export_vocabulary(result, tmp_path / "out")
    assert about["answers"] == {}
    model, tokenizer = served(tmp_path / "out", result.backbone.family)
    for text, mine in zip(TEXTS, result.predict(list(TEXTS)), strict=True):
        given = tokenizer(
            about["template"].format(text=text),
            add_special_tokens=about["adds_special_tokens"],
            return_tensors="pt",
        )
        written = model.generate(**given, max_new_tokens=6, do_sample=False)
        start = 0 if kind == "t5" else given["input_ids"].shape[1]
        assert tokenizer.decode(written[0, start:], skip_special_tokens=True).strip() == mine


@pytest.mark.filterwarnings("ignore:.*tied weights mapping.*")
@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_all_other_words_and_the_text_are_the_same(tiny, tmp_path, kind):
    backbone = tiny(kind)
    result = trained(backbone, position=KINDS[kind])
    about = export_vocabulary(result, tmp_path / "out")
    assert about["max_difference"] <= 1e-5
    assert json.loads((tmp_path / "out" / "softprompts.json").read_text()) == about
    assert (tmp_path / "out" / "prompt_template").read_text() == about["template"]
    model, tokenizer = served(tmp_path / "out", backbone.family)
    rows = result.model.bake()
    found = model.get_input_embeddings()(torch.tensor(about["token_ids"]))
    torch.testing.assert_close(found, rows, atol=1e-5, rtol=1e-5)
    scores = result.predict_scores(list(TEXTS))
    for text, score in zip(TEXTS, scores, strict=True):
        given, chances = answers(about, model, tokenizer, text)
        words = [result.model.readout.words[n] for n in range(2)]
        ids = [result.model.track().readout.labels[n][0] for n in range(2)]
        assert len(words) == 2
        if all(len(one) == 1 for one in result.model.readout.labels):
            expected = torch.tensor([score["scores"][name] for name in ("good", "bad")])
            torch.testing.assert_close(chances[ids], expected, atol=1e-4, rtol=1e-4)
        if backbone.family != "encoder":
            options = {"max_new_tokens": 6, "do_sample": False}
            (mine,) = result.generate([text], **options)
            given.pop("decoder_input_ids", None)
            written = model.generate(**given, **options)
            start = given["input_ids"].shape[1] if backbone.family == "decoder" else 0
            assert tokenizer.decode(written[0, start:], skip_special_tokens=True) == mine


@pytest.mark.parametrize("kind", ["gpt2", "gemma3"])
def test_new_words_take_no_probability_and_are_never_written(tiny, tmp_path, kind):
    backbone = tiny(kind)
    result = trained(backbone, position=KINDS[kind], length=12)
    about = export_vocabulary(result, tmp_path / "out")
    model, tokenizer = served(tmp_path / "out", "decoder")
    assert not model.config.tie_word_embeddings
    head = model.get_output_embeddings().weight
    assert head is not model.get_input_embeddings().weight
    old, most = backbone.vocabulary_size, []
    for text in probes.TEXTS:
        given, _ = answers(about, model, tokenizer, text)
        most.append(model(**given).logits[0].softmax(dim=-1).amax(dim=0))
    most = torch.stack(most).amax(dim=0)
    assert len(most) == old + 4
    torch.testing.assert_close(most[old:], most[: len(backbone.tokenizer)].min().expand(4))
    assert model.generation_config.suppress_tokens == about["token_ids"]


def test_spare_rows_of_the_table_are_used_first(tiny, tmp_path):
    backbone = tiny("gpt2")
    spare = backbone.vocabulary_size - len(backbone.tokenizer)
    assert spare == 8
    about = export_vocabulary(trained(backbone, length=spare), tmp_path / "out")
    model, _ = served(tmp_path / "out", "decoder")
    assert model.config.vocab_size == backbone.vocabulary_size
    assert about["token_ids"] == list(range(len(backbone.tokenizer), backbone.vocabulary_size))
    head = model.get_output_embeddings().weight
    assert torch.equal(head, backbone.model.get_output_embeddings().weight)
    more = export_vocabulary(trained(backbone, length=spare + 1), tmp_path / "more")
    assert served(tmp_path / "more", "decoder")[0].config.vocab_size == more["token_ids"][-1] + 1


def test_the_backbone_is_left_as_it_was(tiny, tmp_path):
    backbone = tiny("gpt2")
    before = backbone.model.config.to_dict(), len(backbone.tokenizer)
    weights = {name: one.clone() for name, one in backbone.model.state_dict().items()}
    export_vocabulary(trained(backbone), tmp_path / "out")
    assert (backbone.model.config.to_dict(), len(backbone.tokenizer)) == before
    after = backbone.model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in weights.items())


@pytest.mark.parametrize(
    ("kind", "template", "position"),
    [
        ("gpt2", "{text} It was", {"kind": "fixed", "split": 2}),
        ("gpt2", "{prompt} {text} {prompt} It was", "marked"),
        ("llama", "{text} {prompt} It was", "marked"),
        ("gemma3", "{text} It was", {"kind": "fixed", "split": 0}),
        ("t5", "{text} {{so}} {prompt} it was", "marked"),
        ("bert", "{text} {sep} It was {mask}.", {"kind": "fixed", "split": 3}),
        ("gpt2", "{text} It was", "task"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tied weights mapping.*")
def test_rows_stand_where_they_stood(tiny, tmp_path, kind, template, position):
    result = trained(tiny(kind), template, position=position)
    about = export_vocabulary(result, tmp_path / "out")
    assert about["max_difference"] <= 1e-5
    assert (about["pair"] is not None) == ("{sep}" in template)


def test_the_chat_template_writes_the_task(tiny, tmp_path):
    result = trained(tiny("llama"), position=AFTER)
    about = export_vocabulary(result, tmp_path / "out")
    _, tokenizer = served(tmp_path / "out", "decoder")
    said = [{"role": "user", "content": TEXTS[0]}]
    ids = tokenizer.apply_chat_template(said, return_dict=True)["input_ids"]
    text = about["template"].format(text=TEXTS[0])
    assert ids == tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[1:6] == about["token_ids"]


def test_nobody_writes_the_words_by_chance(tiny, tmp_path):
    about = export_vocabulary(trained(tiny("bert")), tmp_path / "out")
    _, tokenizer = served(tmp_path / "out", "encoder")
    word = about["tokens"][0]
    assert tokenizer.added_tokens_decoder[about["token_ids"][0]].special
    assert about["token_ids"][0] not in tokenizer(word.upper())["input_ids"]
    split = tokenizer(word, split_special_tokens=True)["input_ids"]
    assert about["token_ids"][0] not in split
    other = export_vocabulary(trained(tiny("bert"), length=4), tmp_path / "other")
    assert not set(other["tokens"]) & set(about["tokens"])


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (
            "llama",
            {},
            r"`prompt.position` must have after_bos: true for --to vocabulary, but is be",
        ),
        ("gpt2", {"position": "instance"}, "`prompt.position` must be the same for every input"),
        ("gpt2", {"rows": "dept"}, "`prompt.rows` must leave tokens as they are embedded"),
        ("gpt2", {"active_length": "instance"}, "`prompt.active_length` must be the same for ever"),
        ("gpt2", {"active_length": {"count": 3}}, "must be all 5 rows for an export, but is 3"),
        ("gpt2", {"pool": "attention"}, "`prompt.pool` must be the same for every input to be exp"),
        (
            "gpt2",
            {"method": "p-tuning-v2"},
            "`prompt.depth` must be input for --to vocabulary, but",
        ),
        ("gpt2", {"method": "zero-shot", "length": None}, "`prompt.length` must be at least 1 for"),
        ("bert", {"readout": "linear"}, "`readout` must be text, cloze or writing for a model"),
    ],
)
def test_what_no_text_can_say_is_refused(tiny, tmp_path, kind, options, text):
    with pytest.raises(PromptError, match=text):
        export_vocabulary(trained(tiny(kind), **options), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_trained_backbones_are_refused(tiny, tmp_path):
    with pytest.raises(BackboneError, match=r"`adaptation` must be none for a prompt .* 'full'"):
        export_vocabulary(trained(tiny("gpt2"), method="fine-tuning", length=None), tmp_path / "o")


def test_a_template_that_is_read_otherwise_as_text_is_refused(tmp_path):
    folder = build("gemma3", tmp_path / "gemma")
    content = (folder / "tokenizer.json").read_text()
    assert '"prepend_scheme": "always"' in content  # from here on only a first word has a space
    (folder / "tokenizer.json").write_text(content.replace('"always"', '"first"'))
    backbone = sp.load_backbone(str(folder))
    about = export_vocabulary(trained(backbone, position=AFTER), tmp_path / "fine")
    assert "-4|> {text}" in about["template"]
    result = trained(backbone, "{text}so{prompt}on", position="marked")
    with pytest.raises(
        DataError, match="must be read alike with words for its rows, but the token"
    ):
        export_vocabulary(result, tmp_path / "out")


def test_taken_places_are_refused_and_nothing_is_written(tiny, tmp_path):
    result = trained(tiny("gpt2"))
    (tmp_path / "out").mkdir()
    export_vocabulary(result, tmp_path / "out")
    with pytest.raises(
        RunFolderError, match="must be a new or empty folder, but holds chat_template"
    ):
        export_vocabulary(result, tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match="must be a new or empty folder, but holds a file"):
        export_vocabulary(result, tmp_path / "file")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["file", "out"]


def test_gguf_is_for_llamas_shape(tiny, tmp_path):
    with pytest.raises(BackboneError, match="must be llama for --gguf, but is 'gpt2'"):
        export_vocabulary(trained(tiny("gpt2")), tmp_path / "out", gguf=tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gguf_is_read_as_the_folder_is(backbone_folder, tmp_path, dtype):
    backbone = sp.load_backbone(str(backbone_folder("llama")), dtype=dtype)
    result = trained(backbone, position=AFTER)
    export_vocabulary(result, tmp_path / "in", gguf=tmp_path / "in" / "model.gguf")
    assert (tmp_path / "in" / "model.gguf").is_file()
    export_vocabulary(result, tmp_path / "out", gguf=tmp_path / "model.gguf")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in", "model.gguf", "out"]
    model, tokenizer = served(tmp_path / "out", "decoder", dtype="float32")
    again = MODELS["decoder"].from_pretrained(tmp_path, gguf_file="model.gguf", dtype="float32")
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(RunFolderError, match="must be a new file, but is there"):
        export_vocabulary(result, tmp_path / "more", gguf=tmp_path / "model.gguf")
    assert not (tmp_path / "more").exists()


def test_a_folder_of_scaled_embeddings_has_rows_divided(tmp_path):
    backbone = sp.load_backbone(str(build("gemma3", tmp_path / "gemma")))
    result = trained(backbone, position=AFTER)
    about = export_vocabulary(result, tmp_path / "out")
    model, _ = served(tmp_path / "out", "decoder")
    kept = model.get_input_embeddings().weight[about["token_ids"]]
    torch.testing.assert_close(kept * 32**0.5, result.model.bake(), atol=1e-5, rtol=1e-5)
