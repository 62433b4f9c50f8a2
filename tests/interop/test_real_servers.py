"""The exported language model answers in llama.cpp, vLLM and lm-eval as in the library.

vLLM needs an environment of its own: `SOFTPROMPTS_VLLM` names the Python that has it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from interop_material import MODELS, client_of

import softprompts as sp
from softprompts.interop.embeds import export_embeds
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


def asked(url, body):
    """Return what a server answers to a request for completion."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["choices"][0]


@pytest.fixture(scope="module")
def words(exported):
    """The label of each word that answers, and the ids of these words' tokens."""
    import transformers

    _, about, folder, _ = exported
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    labels = {f" {word}": label for label, word in about["answers"].items()}
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in labels]
    assert all(len(one) == 1 for one in ids)
    return labels, [one[0] for one in ids]


@pytest.fixture(scope="module")
def llama_server(exported):
    """llama.cpp's server with the GGUF, on loopback.

    It keeps keys in half precision by default, which turns rows that are nearly a tie.
    """
    llama = pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
    parameters = llama.CommonParams()
    parameters.model.path = str(exported[2] / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 4096, 4, 1
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.cache_type_k = parameters.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama.Server(parameters)


def test_llama_cpp_gives_the_same_answers_to_500_at_once(exported, words, llama_server):
    result, about, _, rows = exported
    labels, ids = words
    texts = [about["template"].format(**rows[n % NUM_ROWS].fields) for n in range(500)]
    bias = [[one, 100] for one in ids]
    bodies = [{"prompt": t, "max_tokens": 1, "temperature": 0, "logit_bias": bias} for t in texts]
    with ThreadPoolExecutor(500) as pool:
        found = list(pool.map(lambda body: asked(llama_server.listening_address, body), bodies))
    ours = [one["label"] for one in result.predict_examples(rows)]
    theirs = [labels[one["text"]] for one in found]
    same = sum(one == ours[n % NUM_ROWS] for n, one in enumerate(theirs))
    print(f"llama.cpp: {same} of {len(theirs)} answers to requests at once are the library's")
    assert same == 500


@pytest.fixture(scope="module")
def vllm_server(exported, tmp_path_factory):
    """vLLM's server with the folder, on loopback and on one thread."""
    python = os.environ.get("SOFTPROMPTS_VLLM")
    if not python:
        pytest.skip("SOFTPROMPTS_VLLM does not name a Python that has vLLM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", exported[2] / "model"]
    command += ["--served-model-name", "m", "--dtype", "float32", "--max-model-len", "1024"]
    command += ["--enforce-eager", "--enable-prompt-embeds", "--host", "127.0.0.1", "--port", port]
    names = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    names |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    with open(log, "w") as file:
        server = subprocess.Popen(
            [str(part) for part in command], env={**kept, **names}, stdout=file, stderr=file
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(1)
        assert server.poll() is None, log.read_text()[-2000:]
        yield url
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.parametrize("route", ["text", "embeddings"])
def test_vllm_gives_the_same_answers(exported, words, vllm_server, route, tmp_path):
    result, about, _, rows = exported
    labels, ids = words
    options = {"max_tokens": 1, "temperature": 0, "allowed_token_ids": ids}
    if route == "text":
        texts = [about["template"].format(**row.fields) for row in rows]
        bodies = [{"model": "m", "prompt": text, **options} for text in texts]
    else:
        export_embeds(result, tmp_path / "client")
        client = client_of(tmp_path / "client")
        bodies = [client.request("m", row.fields, **options) for row in rows]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda body: asked(vllm_server, body), bodies))
    theirs = [labels[one["text"]] for one in found]
    ours = [one["label"] for one in result.predict_examples(rows)]
    same = sum(one == other for one, other in zip(theirs, ours, strict=True))
    print(f"vLLM, {route}: {same} of {len(ours)} answers are the library's")
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
