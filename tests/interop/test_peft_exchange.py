"""Adapters of peft: what leaves is read there as here, and what comes in likewise."""

from __future__ import annotations

import copy
import json

import peft
import pytest
import torch
from interop_material import TEXTS, trained, writer

import softprompts as sp
from architectures import build_any
from backbones import KINDS, build, build_tokenizer
from parity.material import padded
from softprompts.errors import PromptError, RunFolderError, StorageError
from softprompts.interop.peft import export_peft

# peft asks for a name that transformers has renamed, and counts positions itself when it writes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

LENGTH = 5
WRITTEN = {"max_new_tokens": 6, "do_sample": False}


def loaded(backbone, folder, body=False):
    """Return peft's model with an adapter, on a copy of the same weights."""
    model = copy.deepcopy(backbone.model.base_model if body else backbone.model)
    return peft.PeftModel.from_pretrained(model, folder).eval()


def apart(found, expected):
    """Return the largest difference, as a share of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def same(backbone, prompt, theirs):
    """Check logits and text."""
    ours = sp.SoftPromptModel(backbone, prompt, with_logits=True).eval()
    ids, mask = padded(backbone)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
        found = ours(ids, mask).logits
        keep = mask.bool()
        assert apart(found[keep], expected[keep]) <= 1e-6
        one, whole = ids[:1], mask[:1]
        written = theirs.generate(input_ids=one, attention_mask=whole, **WRITTEN)
        mine = ours.generate(one, whole, **WRITTEN)
    assert torch.equal(written[0, -mine.shape[1] :], mine[0])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3"])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "prompt-tuning"},
        {"method": "residual"},
        {"rows": "p-tuning"},
        {"pool": "task"},
    ],
    ids=str,
)
def test_rows_in_the_input_are_prompt_tuning(tiny, tmp_path, kind, options):
    backbone = tiny(kind)
    result = trained(backbone, **options)
    about = export_peft(result, tmp_path / "out")
    assert about["adapters"] == {"custom": "."}
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", LENGTH)
    same(backbone, result.model.prompt, loaded(backbone, tmp_path / "out"))


def test_a_prompt_that_writes_is_an_adapter_as_others_are(tiny, tmp_path):
    result = writer(tiny("llama"))
    assert export_peft(result, tmp_path / "out")["templates"] == {"custom": "{text} and so"}
    same(result.backbone, result.model.prompt, loaded(result.backbone, tmp_path / "out"))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["p-tuning-v2", "prefix-tuning"])
def test_rows_in_every_layer_are_prefix_tuning(tiny, tmp_path, kind, method):
    backbone = tiny(kind)
    result = trained(backbone, method=method)
    about = export_peft(result, tmp_path / "out")
    assert about["first_position"] is None
    same(backbone, result.model.prompt, loaded(backbone, tmp_path / "out"))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_rows_in_every_layer_of_an_encoder_are_told_where_to_begin(tiny, tmp_path, kind):
    backbone = tiny(kind)
    result = trained(backbone, method="p-tuning-v2", readout="linear")
    about = export_peft(result, tmp_path / "out")
    assert about["left_out"] == ["readout"]
    assert about["first_position"] == backbone.first_position - LENGTH
    theirs = loaded(backbone, tmp_path / "out", body=True)
    ours = sp.SoftPromptModel(backbone, result.model.prompt).eval()
    given = backbone.tokenizer(TEXTS[0], return_tensors="pt")
    ids, mask = given["input_ids"], given["attention_mask"]
    places = torch.arange(ids.shape[1])[None] + about["first_position"]
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, position_ids=places)
        found = ours(ids, mask).last_hidden_state
    assert apart(found, expected.last_hidden_state) <= 1e-6


def test_an_encoder_decoder_reads_prompt_tuning(tiny, tmp_path):
    backbone = tiny("t5")
    result = trained(backbone)
    export_peft(result, tmp_path / "out")
    theirs = loaded(backbone, tmp_path / "out")
    ids, mask = padded(backbone, TEXTS[:1])
    written = theirs.generate(input_ids=ids, attention_mask=mask, **WRITTEN)
    mine = sp.SoftPromptModel(backbone, result.model.prompt).generate(ids, mask, **WRITTEN)
    assert torch.equal(written, mine)


def test_tasks_have_adapters_of_their_own(tiny, tmp_path):
    backbone = tiny("gpt2")
    task = sp.load_task("bundled/sentiment", shots=2)
    result = sp.train(
        backbone,
        {"one": task, "two": task},
        prompt=sp.PromptConfig(length=LENGTH, pool={"kind": "task", "size": 2}),
        readout="text",
        training=sp.TrainingConfig(steps=2, num_evaluations=1, selection="last", batch_size=2),
    )
    with torch.no_grad():
        result.model.tracks["two"].prompt.pool.logits.copy_(torch.tensor([2.0, -1.0]))
    about = export_peft(result, tmp_path / "out")
    assert about["adapters"] == {"one": "one", "two": "two"}
    theirs = loaded(backbone, tmp_path / "out" / "one")
    theirs.load_adapter(tmp_path / "out" / "two", "two")
    for name, adapter in (("one", "default"), ("two", "two")):
        theirs.set_adapter(adapter)
        same(backbone, result.model.tracks[name].prompt, theirs)


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (
            "gpt2",
            {"position": {"kind": "fixed", "split": 3}},
            "5 rows must stand in front .*but 2 st",
        ),
        ("llama", {"position": {"kind": "fixed", "after_bos": True}}, "but stand behind '<s>' of"),
        ("bert", {}, r"but stand behind '\[CLS\]' of"),
        ("gpt2", {"position": "instance"}, "`prompt.position` must be the same for every input"),
        ("gpt2", {"rows": "dept"}, "`prompt.rows` must leave tokens as they are embedded"),
        ("gpt2", {"pool": "attention"}, "`prompt.pool` must be the same for every input"),
        ("gpt2", {"active_length": "instance"}, "`prompt.active_length` must be the same for"),
        ("t5", {"method": "p-tuning-v2"}, "must be in all layers alike .* are in the encoder, whe"),
        ("gpt2", {"method": "p-tuning-v2", "depth": {"from_layer": 1}}, "but are in 1 of 2 layers"),
        ("gemma3", {"method": "p-tuning-v2"}, "are seen past a sliding window, which peft's leave"),
    ],
    ids=str,
)
def test_what_peft_cannot_do_is_refused(tiny, tmp_path, kind, options, text):
    with pytest.raises(PromptError, match=text):
        export_peft(trained(tiny(kind), **options), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_is_refused(tiny, tmp_path):
    result = trained(tiny("gpt2"))
    export_peft(result, tmp_path / "out")
    with pytest.raises(RunFolderError, match="must be a new or empty folder, but holds adapter_c"):
        export_peft(result, tmp_path / "out")


CONFIGS = {
    "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH),
    "p-tuning": lambda: peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, encoder_hidden_size=16
    ),
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH),
    "projected": lambda: peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        prefix_projection=True,
        encoder_hidden_size=16,
    ),
}


def saved(backbone, config, folder, model=None):
    """Return peft's model with random rows, which are saved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = peft.get_peft_model(copy.deepcopy(model or backbone.model), config).eval()
        with torch.no_grad():
            for one in made.prompt_encoder.parameters():
                one.copy_(0.3 * torch.randn(one.shape))
    made.save_pretrained(folder)
    return made


@pytest.mark.filterwarnings("ignore:for .*encoder:UserWarning")
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_what_peft_saved_is_read_as_there(tiny, tmp_path, kind, name):
    backbone = tiny(kind)
    theirs = saved(backbone, CONFIGS[name](), tmp_path)
    ours = sp.from_peft(tmp_path, backbone)
    assert ours.prompt.length == LENGTH
    same(backbone, ours.prompt, theirs)
    assert all(one.requires_grad for one in ours.parameters())


def test_each_task_of_multitask_prompt_tuning_is_read(tiny, tmp_path):
    backbone = tiny("gpt2")
    config = peft.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_tasks=2, num_ranks=2
    )
    theirs = saved(backbone, config, tmp_path)
    ids, mask = padded(backbone, TEXTS[:1])
    for task in range(2):
        ours = sp.from_peft(tmp_path, backbone, task=task)
        given = {"input_ids": ids, "attention_mask": mask, "task_ids": torch.tensor([task])}
        with torch.no_grad():
            expected = theirs(**given).logits[:, LENGTH:]
            assert apart(ours(ids, mask).logits, expected) <= 1e-6
    with pytest.raises(PromptError, match="`task` must be 0 to 1, but is 2"):
        sp.from_peft(tmp_path, backbone, task=2)


def test_an_encoder_decoder_takes_prompt_tuning(tiny, tmp_path):
    backbone = tiny("t5")
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=LENGTH)
    theirs = saved(backbone, config, tmp_path)
    ours = sp.from_peft(tmp_path, backbone, with_logits=False)
    assert ours.prompt.length == LENGTH
    ids, mask = padded(backbone, TEXTS[:1])
    written = theirs.generate(input_ids=ids, attention_mask=mask, **WRITTEN)
    assert torch.equal(ours.generate(ids, mask, **WRITTEN), written)


def test_there_and_back_is_exact(tiny, tmp_path):
    backbone = tiny("gpt2")
    for method in ("prompt-tuning", "p-tuning-v2"):
        result = trained(backbone, method=method)
        export_peft(result, tmp_path / method)
        again = sp.from_peft(tmp_path / method, backbone)
        assert torch.equal(again.prompt.bake(), result.model.prompt.bake())


def test_rows_of_peft_are_where_training_starts(tiny, tmp_path):
    backbone = tiny("bert")
    rows = trained(tiny("gpt2")).model.bake()
    export_peft(trained(tiny("gpt2")), tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "out" / "adapter_model.safetensors"):
        start = {"kind": "file", "path": str(path)}
        prompt = sp.PromptConfig.model_validate({"length": LENGTH, "initializer": start})
        model = sp.SoftPromptModel(backbone, prompt)
        torch.testing.assert_close(model.prompt.bake(), rows)


def test_rows_in_front_of_tokens_that_are_scaled_behind_their_table_are_refused(tmp_path):
    folder = build_any("pegasus", tmp_path / "pegasus")
    build_tokenizer(KINDS["t5"]).save_pretrained(folder)
    backbone = sp.load_backbone(str(folder))
    assert backbone.embedding_scale > 1
    config = peft.PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=LENGTH, num_transformer_submodules=1
    )
    saved(backbone, config, tmp_path / "adapter")
    with pytest.raises(PromptError, match="must be scaled in its table for rows of peft"):
        sp.from_peft(tmp_path / "adapter", backbone)


def test_what_is_not_read_is_refused(tiny, tmp_path):
    backbone = tiny("gpt2")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    saved(backbone, config, tmp_path)
    with pytest.raises(PromptError, match=r"rows of peft must have no token .* before '\[CLS\]'"):
        sp.from_peft(tmp_path, tiny("bert"))
    with pytest.raises(PromptError, match="`task` must be 0 for PROMPT_TUNING, but is 1"):
        sp.from_peft(tmp_path, backbone, task=1)
    wide = build("gpt2", tmp_path / "wide", n_embd=48)
    with pytest.raises(PromptError, match=r"must have shape \(5, 48\) for .*, but have \(5, 32\)"):
        sp.from_peft(tmp_path, str(wide))
    about = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**about, "peft_type": "LORA"}))
    with pytest.raises(PromptError, match=r"`peft_type` must be PROMPT_TUNING, .* but is 'LORA'"):
        sp.from_peft(tmp_path, backbone)
    prefix = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    saved(tiny("gemma3"), prefix, tmp_path / "narrow")
    with pytest.raises(PromptError, match="must have no sliding window for PREFIX_TUNING"):
        sp.from_peft(tmp_path / "narrow", tiny("gemma3"))
    with pytest.raises(PromptError, match="must be PROMPT_TUNING or P_TUNING for an encoder"):
        sp.from_peft(tmp_path / "narrow", tiny("bert"))
    (tmp_path / "narrow" / "adapter_model.safetensors").unlink()
    with pytest.raises(StorageError, match="no such file"):
        sp.from_peft(tmp_path / "narrow", tiny("gemma3"))
