"""Prompts from their configuration: one per task, with all that tasks share built once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import torch
from torch import Generator, Tensor, nn

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.tokenization import room_beside
from softprompts.errors import PromptError
from softprompts.prompts.depths.base import Depth
from softprompts.prompts.initializers.base import Initializer, InitializerContext
from softprompts.prompts.initializers.vocabulary import VocabularyInitializer
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.registry import (
    ACTIVE_LENGTHS,
    DEPTHS,
    INITIALIZERS,
    POOLS,
    POSITIONS,
    ROWS,
)
from softprompts.prompts.rows.base import Rows
from softprompts.recipes.component_fields import AXES
from softprompts.recipes.presets import NUM_ROWS
from softprompts.recipes.schema import PromptConfig
from softprompts.seeding import generator


def build_prompt(
    config: PromptConfig,
    backbone: Backbone,
    label_words: Sequence[str],
    seed: int,
    reads_decoder: bool = False,
) -> Prompt:
    """Build a prompt in its first state; see `build_prompts`."""
    return build_prompts(config, backbone, label_words, seed, ("",), reads_decoder)[""]


def build_prompts(
    config: PromptConfig,
    backbone: Backbone,
    label_words: Sequence[str],
    seed: int,
    names: Sequence[str],
    reads_decoder: bool = False,
    *,
    instruction: str = "",
) -> dict[str, Prompt]:
    """Build a prompt per task in its first state.

    Tasks share the sets of rows, and every part that has no tensors of its own per task: those
    are the same objects.

    Args:
        config: a resolved prompt configuration: every axis explicit.
        backbone: whose embeddings the rows start from.
        label_words: label words; empty for choice tasks.
        seed: the run's seed.
        names: the tasks; what the first draws is what a run of one task draws.
        reads_decoder: whether the decoder half is read too, so that rows in every layer belong
            there.
        instruction: what the task says is to be done, for rows that start from it.

    Returns:
        Prompts by task.

    Raises:
        BackboneError: if the prompt reaches into attention that cannot be reached.
        DataError: if the prompt leaves no room to the input.
        PromptError: if the prompt cannot be built for this backbone or task.
    """
    axes = [getattr(config, name) for name in AXES]
    if config.length is None or config.initializer is None or None in axes:
        raise PromptError("`prompt` must be resolved before it is built.")
    start: Any = INITIALIZERS.load(config.initializer.kind)(**config.initializer.options)
    length = _num_rows(config, start, backbone, instruction)
    config = config.model_copy(update={"length": length})
    *_, active_length, depth = axes
    if not DEPTHS.load(depth.kind).is_input or active_length != AXES["active_length"].build({}):
        _ = backbone.slots  # an error of theirs is raised now, and not at the first update
    place = _build_depth(depth, backbone, reads_decoder)
    if place.is_input or backbone.family == "decoder":
        room_beside(backbone, length)  # before rows take memory
    units = backbone.units(place.is_input) if config.unit == "relative" else None
    words = partial(InitializerContext, backbone, label_words, instruction=instruction)
    starts = _initial_rows(config, start, words, seed)
    sets = _build_sets(config, partial(place.build_rows, units=units), starts, words, seed)
    build = partial(_build_parts, config, sets, place.is_input, _instance_width(config, backbone))
    prompts: dict[str, Prompt] = {}
    shared: dict[str, nn.Module] = {}
    for name in names:
        path = ("task", name) if shared else ()

        def drawn(axis: str, path: tuple[str, ...] = path) -> Generator:
            return generator(seed, "initialization", axis, *path)

        parts = build(drawn)
        for axis, part in parts.items():
            if not part.task_tensors:
                parts[axis] = shared.get(axis, part)
        shared = shared or dict(parts)
        prompt = Prompt(
            parts["pool"],
            parts["position"],
            parts["active_length"],
            place,
            instance=config.instance,
        )
        prompts[name] = prompt.to(backbone.device)
    return prompts


def _num_rows(config: PromptConfig, start: Any, backbone: Backbone, instruction: str) -> int:
    """Return the prompt's length, which the text may tell that its rows start from."""
    if isinstance(config.length, int):
        return config.length
    return max(NUM_ROWS, int(start.num_tokens(backbone, instruction)))


def _build_parts(
    config: PromptConfig,
    sets: Sequence[Rows],
    is_input: bool,
    width: int,
    drawn: Callable[[str], Generator],
) -> dict[str, Any]:
    """Build pool, position and active length of one task around the sets."""
    axes: Any = (config.pool, config.position, config.active_length)
    pool, position, active_length = axes
    assert isinstance(config.length, int)
    in_input = config.length if is_input else 0
    return {
        "pool": POOLS.load(pool.kind)(sets, width, drawn("pool"), **pool.options),
        "position": POSITIONS.load(position.kind)(
            in_input, width, drawn("position"), **position.options
        ),
        "active_length": ACTIVE_LENGTHS.load(active_length.kind)(
            config.length, width, drawn("active_length"), **active_length.options
        ),
    }


def _build_sets(
    config: PromptConfig,
    build: Callable[..., Rows],
    starts: Sequence[Tensor],
    around: Callable[..., InitializerContext],
    seed: int,
) -> list[Rows]:
    """Build the sets of rows; a set that is frozen asks for no gradient."""
    assert config.rows is not None
    kind = ROWS.load(config.rows.kind)
    sets: list[Rows] = []
    for number, initial in enumerate(starts):
        path = (number,) if number else ()  # the first set starts as a single one would

        def draw(part: int, path: tuple[int, ...] = path) -> Generator:
            of_part = ("part", part) if part else ()
            return generator(seed, "initialization", "network", *path, *of_part)

        options = dict(config.rows.options)
        if kind.needs_words:
            draws = generator(seed, "initialization", "words", *path)
            many = VocabularyInitializer()(options.pop("num_words"), around(generator=draws))
            options["words"] = many
        rows = build(kind, partial(kind, **options), initial, draw)
        _check_rows(config.rows.kind, rows, len(initial))
        sets.append(rows)
    if config.from_run is not None and config.from_run.is_frozen:
        for rows in sets:
            rows.requires_grad_(False)
    return sets


def _check_rows(kind: str, rows: Rows, length: int) -> None:
    """Refuse a kind of rows that gives others than its parameters make, or too few."""
    found: object = rows()
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != length:
        said = tuple(found.shape) if isinstance(found, Tensor) else repr(found)
        raise PromptError(
            f"rows {kind!r} must return a tensor of shape ({length}, hidden), but returned {said}."
        )
    is_trained = torch.is_grad_enabled() and any(one.requires_grad for one in rows.parameters())
    if is_trained and not found.requires_grad:
        raise PromptError(f"rows {kind!r} must depend on their parameters, but do not.")


def _build_depth(config: Any, backbone: Backbone, reads_decoder: bool) -> Depth:
    """Build the depth of a prompt, for the attentions that a run's readout reads."""
    slots = () if DEPTHS.load(config.kind).is_input else backbone.slots
    if backbone.family == "encoder-decoder" and not reads_decoder:
        slots = tuple(slot for slot in slots if slot.stack == "encoder")
    depth: Depth = DEPTHS.load(config.kind)(slots, backbone.keys_and_values, **config.options)
    return depth


def _initial_rows(
    config: PromptConfig,
    start: Initializer,
    around: Callable[..., InitializerContext],
    seed: int,
) -> list[Tensor]:
    """Return the embeddings that each set of rows starts from. Shape `(length, embedding)`."""
    assert config.initializer is not None
    assert config.pool is not None
    assert isinstance(config.length, int)
    kind = config.initializer.kind
    found: list[Tensor] = []
    seen: set[bytes] = set()
    for number in range(config.pool.options.get("size", 1)):
        draws = generator(seed, "initialization", "rows", *((number,) if number else ()))
        context = around(generator=draws)
        initial = start(config.length, context)
        shape = (config.length, context.backbone.embedding_size)
        if not isinstance(initial, Tensor) or initial.shape != shape:
            said = tuple(initial.shape) if isinstance(initial, Tensor) else repr(initial)
            raise PromptError(
                f"initializer {kind!r} must return a tensor of shape {shape}, but returned {said}."
            )
        initial = initial.float()
        known = sha256((initial.detach() + 0.0).numpy().tobytes()).digest()  # 0 and -0 are equal
        if initial.numel() and known in seen:
            raise PromptError(
                "`prompt.initializer` must start the sets of a pool apart, since equal sets stay "
                f"equal, but is {kind!r}."
            )
        seen.add(known)
        found.append(initial)
    return found


def _instance_width(config: PromptConfig, backbone: Backbone) -> int:
    """Return the width of the instance vectors that a prompt looks at."""
    return backbone.hidden_size if config.instance == "states" else backbone.embedding_size
