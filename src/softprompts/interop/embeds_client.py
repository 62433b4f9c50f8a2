"""Requests with a trained prompt, to servers that read embeddings in place of text.

Such as `vllm serve MODEL --enable-prompt-embeds`. This file needs its folder, torch, safetensors
and transformers, and nothing else:

    from client import Client

    client = Client()
    print(client.complete("http://localhost:8000", "MODEL", {"text": "A fine day."}, max_tokens=1))
"""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer


class Client:
    """Writes a task's inputs as embeddings.

    Args:
        folder: where this file was written.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        place = Path(folder)
        self.about = json.loads((place / "softprompts.json").read_text("utf-8"))
        self.table: Tensor = load_file(place / "embeddings.safetensors")["embeddings"]
        self.tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)

    def embeddings(self, fields: Mapping[str, str]) -> Tensor:
        """Return one input as the model reads it, in its precision. Shape `(tokens, hidden)`.

        Args:
            fields: text by field of the template.
        """
        text = self.about["template"].format(**fields)
        ids = self.tokenizer(text, add_special_tokens=self.about["adds_special_tokens"])
        return self.table.index_select(0, torch.tensor(ids["input_ids"]))

    def request(self, model: str, fields: Mapping[str, str], **options: Any) -> dict[str, Any]:
        """Return the body of a request to `/v1/completions`.

        Args:
            model: the model's name on the server.
            fields: text by field of the template.
            options: such as `max_tokens`, `temperature` or `logprobs`.
        """
        buffer = io.BytesIO()
        torch.save(self.embeddings(fields).clone(), buffer)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return {"model": model, "prompt_embeds": encoded, **options}

    def complete(self, url: str, model: str, fields: Mapping[str, str], **options: Any) -> str:
        """Return what a server writes behind an input.

        Args:
            url: the server, such as `http://localhost:8000`.
            model: the model's name on the server.
            fields: text by field of the template.
            options: as for `request`.
        """
        body = json.dumps(self.request(model, fields, **options)).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{url}/v1/completions", body, headers)
        with urllib.request.urlopen(asked) as answer:
            text: str = json.load(answer)["choices"][0]["text"]
        return text
