"""The exported language model answers in llama.cpp and in lm-eval as in the library."""

from __future__ import annotations

import json

import pytest
from interop_material import MODELS

import softprompts as sp
from softprompts.interop.vocabulary import export_vocabulary

NUM_ROWS = 200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A prompt of eight rows after 20 updates, its folder and GGUF file, and the scored rows."""
    folder = tmp_path_factory.mktemp("exported")
    task = sp.load_task("bundled/question-type", shots=32, num_items=NUM_ROWS)
    result = sp.train(
        sp.load_backbone("smollm2"),
        task,
        prompt=sp.PromptConfig(length=8),
        readout={"kind": "text", "objective": "ranking"},
        training=sp.TrainingConfig(
            steps=20, batch_size=8, learning_rate=0.03, num_evaluations=1, selection="last"
        ),
    )
    about = export_vocabulary(result, folder / "model", gguf=folder / "model.gguf")
    assert len(task.validation) == NUM_ROWS
    return result, about, folder, task.validation


def test_llama_cpp_gives_the_same_answers(exported):
    llama = pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
    result, about, folder, rows = exported
    parameters = llama.CommonParams()
    parameters.model.path = str(folder / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 1024, 1, 1
    # llama.cpp keeps keys in half precision by default, which turns rows that are nearly a tie
    parameters.cache_type_k = parameters.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = llama.Server(parameters)
    labels = {f" {word}": label for label, word in about["answers"].items()}
    ours = [one["label"] for one in result.predict_examples(rows)]
    theirs = []
    for row in rows:
        text = about["template"].format(**row.fields)
        asked = {"prompt": text, "n_predict": 1, "temperature": 0, "n_probs": 5_000}
        answer = server.handle_completions(asked)
        (token,) = answer["choices"][0]["logprobs"]["content"]
        found = [labels[one["token"]] for one in token["top_logprobs"] if one["token"] in labels]
        theirs.append(found[0])
    same = sum(one == other for one, other in zip(theirs, ours, strict=True))
    print(f"llama.cpp: {same} of {len(ours)} answers are the library's")
    assert theirs == ours


@pytest.mark.filterwarnings("ignore")
def test_lm_eval_gives_the_same_accuracy(exported, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    result, about, folder, rows = exported
    names = list(about["answers"])
    lines = [
        {"context": about["template"].format(**row.fields), "gold": row.answers[0]} for row in rows
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = ConfigurableTask(
        config={
            "task": "question-type",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{context}}",
            "doc_to_choice": [about["answers"][name] for name in names],
            "doc_to_target": "{{gold}}",
            "metric_list": [{"metric": "acc"}],
        }
    )
    model = HFLM(pretrained=str(folder / "model"), device="cpu", dtype="float32", batch_size=8)
    found = simple_evaluate(model, tasks=[task], bootstrap_iters=0)
    accuracy = found["results"]["question-type"]["acc,none"]
    print(f"lm-eval: accuracy {accuracy}, the library's {result.score}")
    assert accuracy == pytest.approx(result.score)


def test_logits_and_text_of_the_bundled_model_are_the_same(exported):
    result, about, folder, rows = exported
    assert about["max_difference"] <= 1e-5 * 30  # logits are near 20 here
    model = MODELS["decoder"].from_pretrained(folder / "model").eval()
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    options = {"max_new_tokens": 8, "do_sample": False}
    for row in rows[:10]:
        given = tokenizer(about["template"].format(**row.fields), return_tensors="pt")
        written = model.generate(**given, **options)[0, given["input_ids"].shape[1] :]
        (mine,) = result.generate([dict(row.fields)], **options)
        assert tokenizer.decode(written, skip_special_tokens=True) == mine
