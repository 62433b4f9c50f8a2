"""Reads what a plain reader reads, with less work: what is known is not read, padding neither."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs, count_copies, decoder_call
from softprompts.backbones.layers import Stack, gather_positions
from softprompts.backbones.memory import Memory
from softprompts.component import Component
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import BackboneError
from softprompts.examples import Example
from softprompts.fast.compiling import CompiledLayer, parts_of
from softprompts.fast.encoding_cache import LEAST_ROWS, open_encoding_cache
from softprompts.fast.input_keys import Ahead, can_read_on, input_memory, read_input_keys
from softprompts.fast.joined_inputs import biased_attentions
from softprompts.fast.kept import Kept
from softprompts.fast.lower_states import Below, pad_states, read_below
from softprompts.fast.prepacking import hints_of
from softprompts.fast.readings import all_readings, readings_of
from softprompts.fast.route import FastPass, Route, Shortcuts, register_masks
from softprompts.fast.shortcuts import find_shortcuts
from softprompts.prompts.prompt import Prompt
from softprompts.training.reader import Joint, Reader, Request, join, part

if TYPE_CHECKING:
    from softprompts.readouts.base import Readout

_LEAST_GAIN = 2
"""How many times narrower a batch must get, so that reading on is worth its while."""


@final
class FastReader(Reader):
    """Reads with all shortcuts that give the same; one for all backbones."""

    def __init__(self) -> None:
        self._ways: weakref.WeakKeyDictionary[Backbone, Ways] = weakref.WeakKeyDictionary()

    def ways(self, backbone: Backbone) -> Ways:
        """Return the ways to read through a backbone."""
        found = self._ways.get(backbone)
        if found is None:
            found = self._ways[backbone] = Ways(backbone)
        return found

    def read(self, backbone: Backbone, requests: Sequence[Request]) -> list[Tensor]:
        """Read requests through one forward, or through one for each kind of what is known."""
        ways = self._ways.get(backbone) or self.ways(backbone)
        known = [ways.known(backbone, one) if one.is_known else None for one in requests]
        if len(requests) == 1:
            return ways.read_alike(backbone, requests, known)
        kinds = [(type(one), one.num_layers if isinstance(one, Below) else 0) for one in known]
        found: dict[int, Tensor] = {}
        for kind in dict.fromkeys(kinds):
            group = [number for number, other in enumerate(kinds) if other == kind]
            chosen = [requests[number] for number in group]
            values = ways.read_alike(backbone, chosen, [known[number] for number in group])
            found |= dict(zip(group, values, strict=True))
        return [found[number] for number in range(len(requests))]

    def find(
        self,
        backbone: Backbone,
        keys: Sequence[tuple[Any, ...]],
        read: Callable[[int], Tensor],
        *,
        is_durable: bool,
    ) -> list[Tensor]:
        """Return what is read of inputs, once per key, kept on disk where it is durable."""
        readings = readings_of(backbone)
        return [
            readings.find(key, partial(read, place), is_durable) for place, key in enumerate(keys)
        ]

    def save(self, backbone: Backbone) -> None:
        """Make durable what waits; trouble with the disk is a warning, never an error."""
        for readings in all_readings(backbone):
            readings.save()

    def num_positions(
        self,
        backbone: Backbone,
        prompt: Prompt,
        examples: Sequence[EncodedExample],
        is_clean: bool,
    ) -> list[int]:
        """Return how many positions are read, without those whose keys are kept."""
        num_rows, found = prompt.length if prompt.depth.is_input else 0, []
        kept, position = self.ways(backbone).kept, prompt.position
        is_read_on = is_clean and not prompt.changes_tokens and backbone.is_frozen and num_rows > 0
        is_read_on = is_read_on and backbone.family == "decoder"
        for example in examples:
            longest = most = 0  # of whole inputs, and from the first row on
            for one in example.inputs:
                first = one.marks[0] if position.needs_marks and one.marks else one.end
                rest = len(one.ids) - (one.start if position.has_front else first)
                longest, most = max(longest, len(one.ids)), max(most, rest)
            whole, rest = longest + num_rows, most + num_rows
            is_less = is_read_on and _LEAST_GAIN * rest <= whole
            is_able = is_less and kept.is_able("read on", lambda: can_read_on(backbone))
            found.append(rest if is_able else whole)
        return found

    def reads_padding(self, backbone: Backbone) -> bool:
        """Return whether inputs cannot stand in one row."""
        return not self.ways(backbone).shortcuts.joins

    def encode(
        self, config: Component, readout: Readout, examples: Sequence[Example]
    ) -> list[EncodedExample]:
        """Return encoded examples; many of them are looked for on disk."""
        cache = None
        if len(examples) >= LEAST_ROWS:
            cache = open_encoding_cache(config, readout)
        return cache.encode(readout, examples) if cache else list(map(readout.encode, examples))


@final
class Ways:
    """The ways to read through one backbone.

    Args:
        backbone: the model.

    Attributes:
        kept: what is kept of its inputs.
        hints: what its modules are told of values.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = weakref.ref(backbone)
        self.kept, self.hints = Kept(backbone.device), hints_of(backbone.model)
        self._is_compiled = backbone.is_compiled
        self._compiled: dict[str, dict[int, CompiledLayer]] = {}

    @property
    def backbone(self) -> Backbone:
        """The model."""
        found = self._backbone()
        assert found is not None
        return found

    @cached_property
    def shortcuts(self) -> Shortcuts:
        """Ways to read a batch with less work; they are tried when they are first asked for."""
        for stack in self.backbone.stacks:
            register_masks(stack)
        return find_shortcuts(self.backbone, self._states_at, self._decode)

    def known(self, backbone: Backbone, request: Request) -> Ahead | Below | None:
        """Return what is known of a request's inputs, which may be kept."""
        if request.output is not None and request.output.prefixes:
            return read_below(backbone, request, self.kept)
        return read_ahead(backbone, request, self.kept)

    def read_alike(
        self,
        backbone: Backbone,
        requests: Sequence[Request],
        known: Sequence[Ahead | Below | None],
    ) -> list[Tensor]:
        """Read requests of one kind through one forward."""
        if known[0] is None:
            values = self.read_joint(join(backbone, requests))
            return [values] if len(requests) == 1 else part(requests, values)
        below = [one for one in known if isinstance(one, Below)]
        if below:
            return part(requests, self.read_joint(join(backbone, requests), below))
        ahead = [one for one in known if isinstance(one, Ahead)]
        requests = [_behind(request, one) for request, one in zip(requests, ahead, strict=True)]
        joint = join(backbone, requests)
        keys, lead = [one for each in ahead for one in each.kept], [one.lead for one in ahead]
        memory = input_memory(ahead[0].slots, keys, torch.cat(lead))
        memory = replace(memory, gates=joint.spliced.gates, gated=joint.spliced.gated)
        return part(requests, self.read_joint(replace(joint, memory=memory)))

    def read_joint(self, joint: Joint, below: Sequence[Below] = ()) -> Tensor:
        """Read a batch by its route. Shape `(reads, slots, width)`."""
        backbone, spliced, memory = self.backbone, joint.spliced, joint.memory
        given = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
        if joint.needs_head:
            backbone.check_head(joint.decoder)
        inputs, gather = backbone.body_inputs(*given, memory), joint.places
        wanted = spliced.is_row if backbone.is_frozen and torch.is_grad_enabled() else None
        route = Route()
        if joint.decoder is not None:
            route = self.shortcuts.whole(spliced.attention_mask, wanted)
        elif gather is not None:
            route = self.shortcuts.route(spliced.attention_mask, gather, memory, wanted)
        if below:
            states = pad_states([one for each in below for one in each.states], given[0].shape[1])
            route = replace(route, below=(below[0].num_layers, states))
        if joint.decoder is not None:
            return self._read_both(inputs, joint, joint.decoder, route)
        if gather is None or not joint.needs_head:
            return self._states(backbone, inputs, gather, memory, route)
        places = gather
        if route.joined is not None:
            inputs, places = route.lead(inputs, gather)
        one = self._pass(backbone.stacks[0], memory, route)
        return backbone.run_head(inputs, places, one).view(*gather.shape, -1)

    def _read_both(
        self,
        inputs: dict[str, Any],
        joint: Joint,
        decoder: DecoderInputs,
        route: Route,
    ) -> Tensor:
        """Run the encoder once, in a row where it may be, and the decoder on what it gives."""
        backbone, mask = self.backbone, joint.spliced.attention_mask
        joined, one = route.joined, self._pass(backbone.stacks[0], joint.memory, route)
        if joined is not None:
            inputs = joined.inputs(inputs, route.first_position)
        encoded = backbone.run_body(inputs, one)
        copies = count_copies(decoder.source, len(mask)) if self.shortcuts.shares else 1
        memory = None if joint.memory is None else joint.memory.take(decoder.source)
        assert joint.places is not None
        if joined is None:
            return self._decode(encoded, mask, joint.places, decoder, copies, memory)
        row = encoded.last_hidden_state
        encoded.last_hidden_state = batch = joined.part(row)
        with self.hints.remembering(batch, row, joined):
            return self._decode(encoded, mask, joint.places, decoder, copies, memory)

    def _decode(
        self,
        encoded: Any,
        mask: Tensor,
        gather: Tensor,
        decoder: DecoderInputs,
        copies: int,
        memory: Memory | None = None,
    ) -> Tensor:
        """Return logits at positions of the decoder. Shape `(targets, slots, vocab)`."""
        inputs = decoder_call(encoded, mask, decoder, copies)
        one = self._pass(self.backbone.stacks[-1], memory, Route(copies=copies))
        return self.backbone.run_decoder(inputs, gather, one)

    def _states_at(self, embeddings: Tensor, mask: Tensor, gather: Tensor, route: Route) -> Tensor:
        inputs = self.backbone.body_inputs(embeddings, mask, None)
        return self._states(self.backbone, inputs, gather, None, route)

    def _states(
        self,
        backbone: Backbone,
        inputs: dict[str, Any],
        gather: Tensor | None,
        memory: Memory | None,
        route: Route,
    ) -> Tensor:
        """Run the body and return its states. Shape `(batch, slots, hidden)`."""
        places = gather
        if gather is not None and route.joined is not None:
            inputs, places = route.lead(inputs, gather)
        one = self._pass(backbone.stacks[0], memory, route)
        states: Tensor = backbone.run_body(inputs, one).last_hidden_state
        if gather is None or places is None:
            return states
        return gather_positions(states, places).view(*gather.shape, -1)

    def _pass(self, stack: Stack, memory: Memory | None, route: Route) -> FastPass | None:
        """Return the pass through a half; `None` where it is as the model would have it."""
        is_compiled = self._is_compiled and torch.is_grad_enabled()
        compiled = self._find_compiled(stack, memory) if is_compiled else {}
        is_whole = route.tail is None and route.below is None
        is_plain = is_whole and route.joined is None and route.copies == 1
        if memory is None and is_plain and not compiled:
            return None
        biased = () if route.joined is None else self._biased  # one half alone is joined
        return FastPass(stack, memory, route, self.hints, compiled, biased)

    @cached_property
    def _biased(self) -> list[Any]:
        """Attentions of the half whose inputs are joined that make a bias of positions."""
        return biased_attentions(self.backbone.stacks[0].body)

    def _find_compiled(self, stack: Stack, memory: Memory | None) -> dict[int, CompiledLayer]:
        """Return the compiled forms of layers by identity.

        Raises:
            BackboneError: if layers are compiled that have nothing to compile beside attention,
                and attention is given a memory.
        """
        if memory is not None and not all(parts_of(layer) for layer in stack.layers):
            raise BackboneError(
                "`backbone.compile` must be false for a prompt that reaches into the attention of "
                f"{type(stack.layers[0]).__name__}, which has no parts beside it to compile."
            )
        if stack.name not in self._compiled:
            layers = {id(layer): CompiledLayer(layer) for layer in stack.layers}
            self._compiled[stack.name] = layers
        return self._compiled[stack.name]


def _behind(request: Request, known: Ahead) -> Request:
    """Return what is to be read behind the first tokens of a request's inputs."""
    assert request.places is not None
    rest, places = request.spliced.behind(known.lead), request.places - known.lead[:, None]
    return replace(request, spliced=rest, places=places)


def read_ahead(backbone: Backbone, request: Request, kept: Kept) -> Ahead | None:
    """Return how much of each input need not be read again, and the keys that stand for it.

    That is what stands in front of the first row and of all places whose output is read. A
    selector of positions that is trained looks at the gradient of all tokens, so then nothing is
    left out; nor where rows are read in every layer, where the backbone is trained, under a
    caller's autocast, and where less than half of the batch's width would be saved. Without rows,
    it is what stands in front of all inputs.

    Args:
        backbone: the model that is read.
        request: what is to be read.
        kept: what is kept of the backbone's inputs.

    Returns:
        What is known; `None` where the whole input is to be read.
    """
    batch, output, spliced, places = request.batch, request.output, request.spliced, request.places
    if batch is None or output is None or places is None:
        return None
    weights = output.placement.weights
    is_blind = weights is None or not weights.requires_grad
    if backbone.family != "decoder" or not backbone.is_frozen or not is_blind:
        return None
    if torch.is_autocast_enabled(backbone.device.type) or output.prefixes:
        return None
    if output.rows.shape[1]:
        first = spliced.row_positions.min(dim=1).values  # (inputs,): tokens in front of all rows
    else:
        first = torch.tensor([item.lead for item in batch.items], device=places.device)
    lead = torch.minimum(first, places.min(dim=1).values)  # (inputs,)
    rest = (spliced.lengths - lead).max()
    if bool(_LEAST_GAIN * rest > spliced.lengths.max()):
        return None
    if not kept.is_able("read on", lambda: can_read_on(backbone)):
        return None
    # Read are the tokens in front of the rows, not of `lead`: that place may hang on the prompt.
    counts = first.clamp(min=1).tolist()
    wanted = [tuple(ids[:count]) for ids, count in zip(batch.ids.tolist(), counts, strict=True)]
    keys = kept.find("keys", wanted, lambda group: read_input_keys(backbone, group))
    return Ahead(lead, keys, backbone.stacks[0].slots or ())
