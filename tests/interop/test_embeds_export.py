"""The written client asks for what the library's model reads."""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from interop_material import TEXTS, client_of, trained, writer

import softprompts as sp
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import BackboneError, PromptError
from softprompts.interop.embeds import export_embeds
from softprompts.prompts.splice import arrange
from softprompts.training import forward


def read_by_the_library(result, text):
    """Return the embeddings that a run's backbone reads. Shape `(tokens, hidden)`."""
    (example,) = result.examples([text])
    track = result.model.track()
    item = track.readout.encode_input(example)
    batch = collate([EncodedExample((item,), 1, (), False)], 0)
    output = forward.emit(result.backbone, forward.Part(track.prompt, track.readout, batch))
    tokens = (forward.embed(result.backbone, track.prompt, batch), batch.attention_mask)
    places = (batch.start, batch.end)
    return arrange(output, (*tokens, batch.segments), places).embeddings[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "position"),
    [
        ("gpt2", "fixed"),
        ("llama", "fixed"),
        ("llama", {"kind": "fixed", "after_bos": True}),
        ("gemma3", {"kind": "fixed", "split": 2}),
    ],
)
def test_a_request_holds_what_the_model_reads(backbone_folder, tmp_path, kind, position, dtype):
    result = trained(sp.load_backbone(str(backbone_folder(kind)), dtype=dtype), position=position)
    about = export_embeds(result, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "softprompts.json").read_text()) == about
    client = client_of(tmp_path / "out")
    for text in TEXTS:
        body = client.request("tiny", {"text": text}, max_tokens=1)
        assert (body["model"], body["max_tokens"]) == ("tiny", 1)
        kept = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"])), weights_only=True)
        expected = read_by_the_library(result, text)
        assert kept.dtype == expected.dtype == result.backbone.dtype
        assert torch.equal(kept, expected)


def test_a_run_that_writes_asks_by_embeddings(tiny, tmp_path):
    result = writer(tiny("gpt2"))
    export_embeds(result, tmp_path / "out")
    body = client_of(tmp_path / "out").request("tiny", {"text": TEXTS[0]}, max_tokens=6)
    kept = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"])), weights_only=True)
    assert torch.equal(kept, read_by_the_library(result, TEXTS[0]))


def test_the_answer_of_a_server_is_given_back(tiny, tmp_path):
    export_embeds(trained(tiny("gpt2")), tmp_path / "out")
    client, seen = client_of(tmp_path / "out"), []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers["Content-Length"])
            seen.append((self.path, json.loads(self.rfile.read(size))))
            answer = json.dumps({"choices": [{"text": " good"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert client.complete(url, "tiny", {"text": TEXTS[0]}) == " good"
        thread.join()
    assert seen == [("/v1/completions", client.request("tiny", {"text": TEXTS[0]}))]


def test_what_such_servers_do_not_run_is_refused(tiny, tmp_path):
    with pytest.raises(BackboneError, match=r"must be a decoder for --to embeds, but .*'encoder'"):
        export_embeds(trained(tiny("bert")), tmp_path / "out")
    with pytest.raises(
        PromptError, match=r"`prompt.depth` must be input for --to embeds, but is e"
    ):
        export_embeds(trained(tiny("gpt2"), method="p-tuning-v2"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
