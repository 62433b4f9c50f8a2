"""What a backbone asks of a tokenizer, wherever it comes from."""

from __future__ import annotations

from typing import Any

from softprompts.errors import BackboneError


def check_fast(tokenizer: Any, name: str) -> None:
    """Check that a tokenizer says which characters a token covers.

    Args:
        tokenizer: a tokenizer of transformers.
        name: the backbone's, for the error.

    Raises:
        BackboneError: if it does not.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BackboneError(
            f"backbone {name!r} must have a fast tokenizer, since only those say which "
            f"characters a token covers, but has {type(tokenizer).__name__}."
        )


def set_padding(tokenizer: Any, model: Any) -> None:
    """Pad at the right, with a token that the table has; masks hide it, so any one will do.

    Args:
        tokenizer: the backbone's own; it is changed.
        model: the model whose table it is.
    """
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    num_rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id < num_rows:
        return
    end = tokenizer.eos_token_id
    is_usable = end is not None and end < num_rows
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end if is_usable else 0)
