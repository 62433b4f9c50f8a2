"""Batches as regularizers get them."""

from __future__ import annotations

import pytest
import torch

from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.encoding.template import parse_template
from softprompts.encoding.tokenization import Tokenization
from softprompts.prompts.draws import Draws
from softprompts.regularizers.base import Inputs
from softprompts.regularizers.field_tokens import FieldTokens

TEXTS = (
    "the second half of the book is better than the first half",
    "the waiter forgot us",
    "good bread",
)


@pytest.fixture(scope="session")
def inputs_of(tiny):
    """Return a function that makes inputs of texts, some read as several inputs."""

    def make(kind, texts=TEXTS, *, template="review: {text} {sep} {other} ok", step=0, number=0):
        backbone = tiny(kind)
        tokenization = Tokenization(backbone)
        parsed = parse_template(template)
        examples = []
        for row, text in enumerate(texts):
            ends = ("it rained", "nobody came at all")[: 1 + row % 2]
            items = [
                tokenization.encode(parsed, {"text": text, "other": "the price", "choice": end})[0]
                for end in ends
            ]
            examples.append(EncodedExample(tuple(items), 2, (0,), False))
        batch = collate(examples, backbone.tokenizer.pad_token_id)
        draws = Draws(7, step, 0, batch.examples, batch.size)
        embeddings = backbone.embed(batch.ids)
        return Inputs(batch, embeddings, FieldTokens.of(batch), draws, number, embed=backbone.embed)

    return make


@pytest.fixture(scope="session")
def moves():
    """Return a function from inputs and what became of them to the moves of field tokens."""

    def find(inputs, perturbed):
        change = perturbed.embeddings - inputs.embeddings
        assert not change[~inputs.fields.mask].any()
        return [
            [
                change[row][inputs.fields.mask[row]]
                for row in torch.where(inputs.batch.examples == example)[0].tolist()
            ]
            for example in range(inputs.batch.size)
        ]

    return find
