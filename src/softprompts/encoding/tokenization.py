"""From a template and a row to token ids, with every token's role known.

Field text is data: special tokens spelled inside it are split into ordinary pieces, never obeyed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from softprompts.encoding.chat import Form, chat_form, plain_form
from softprompts.encoding.inputs import EncodedInput
from softprompts.encoding.template import MARK, TOKEN, Piece, Role, Template
from softprompts.errors import DataError

if TYPE_CHECKING:
    from softprompts.backbones.backbone import Backbone


@dataclass(frozen=True, slots=True)
class _Token:
    id: int
    role: Role
    place: int = -1  # which field it came from, -1 for none
    field: str = ""  # the field's name
    starts: bool = True  # whether it starts a word


_LEAST_TOKENS = 8
"""Tokens that an input keeps, however much of the context is taken."""

_MARK = _Token(-1, Role.PADDING)
"""Stands among the tokens where rows of a prompt will, until the cut is done."""


_Span: TypeAlias = tuple[int, int, Role, int, str]
"""First character, character after the last, role, number of the piece and its name."""

_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts without spaces: a word per sign
_LETTERS = rf"(?:(?![{_ALONE}])\w)+"
_WORD = re.compile(rf"[{_ALONE}]|{_LETTERS}(?:['’]{_LETTERS})*|[^\w\s]")


def room_beside(backbone: Backbone, prompt_length: int) -> int | None:
    """Return how many tokens the context holds beside a prompt; `None` where it has no end."""
    if backbone.context_length is None:
        return None
    room = backbone.context_length - prompt_length
    if room < _LEAST_TOKENS:
        raise DataError(
            f"`prompt.length` must leave at least {_LEAST_TOKENS} of the {backbone.context_length} "
            f"positions of {backbone.name} to the input, but is {prompt_length}."
        )
    return room


@final
class Tokenization:
    """Turns rows into token ids within a budget.

    Args:
        backbone: whose tokenizer and special tokens are used.
        prompt_length: rows that will share the context with the tokens.
        max_tokens: cap on the tokens of one input, or `None` for what the context allows.
        after_bos: let rows in front of a decoder's input stand behind the tokens that it begins
            with, where the tokenizer puts some there.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt_length: int = 0,
        max_tokens: int | None = None,
        *,
        after_bos: bool = False,
    ) -> None:
        self.tokenizer = backbone.tokenizer
        self.frame = backbone.frame
        self.family = backbone.family
        self.after_bos = after_bos or backbone.family != "decoder"
        room = room_beside(backbone, prompt_length)
        limits = [limit for limit in (room, max_tokens) if limit is not None]
        self.budget = min(limits) if limits else None
        self.room = room

    def _budget(self, num_reserved: int) -> int | None:
        """Return the most tokens of one input, where some of the context is kept free."""
        if self.room is None or not num_reserved:
            return self.budget
        room = self.room - num_reserved
        if room < _LEAST_TOKENS:
            raise DataError(
                f"`max_new_tokens` must leave at least {_LEAST_TOKENS} of the {self.room} "
                f"positions beside the prompt to the input, but is {num_reserved}."
            )
        return room if self.budget is None else min(room, self.budget)

    def form(self, template: Template) -> Form:
        """Return how a template is read, in the tokenizer's form of a chat where it has turns."""
        if not template.roles:
            return plain_form(template)
        if self.family != "decoder":
            raise DataError(
                f"template must have no turns for a backbone of family {self.family!r}, but is "
                f"{template.source!r}."
            )
        return chat_form(template, self.tokenizer)

    def words(self, text: str, tail: str = ":", lead: str = " ") -> tuple[int, ...]:
        """Return the token ids of `text`, at least one, as they are behind other text.

        White space `lead` between `tail` and the text belongs to it.
        """
        encoded = self._tokenize(f"{tail}{lead}{text.strip()}")
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ids = tuple(token for token, (_, stop) in pairs if stop > len(tail))
        if not text.strip() or not ids:
            raise DataError(f"label words must have at least one token, but are {text!r}.")
        return ids

    def literal(self, template: Template) -> tuple[int, ...]:
        """Return the tokens of a template without places, and without any around it."""
        return tuple(t.id for pieces in template.texts for t in self._tokens(pieces, {}, 0))

    def encode(
        self,
        template: Template,
        values: Mapping[str, str],
        *,
        num_masks: int = 0,
        continuation: Sequence[int] = (),
        longest: int = 0,
        num_reserved: int = 0,
        source: str = "",
    ) -> tuple[EncodedInput, bool]:
        """Encode one row; return the input, and whether a field was cut to fit the budget.

        Args:
            template: the parsed template.
            values: text per place, `choice` included where the template names it.
            num_masks: mask tokens at `{mask}`.
            continuation: label tokens to append (decoders).
            longest: most mask or label tokens of an input of this row, so that all are cut alike.
            num_reserved: positions of the context to keep free for what will be written.
            source: `file:line` for messages.
        """
        texts = template.texts
        if len(texts) == 2 and (self.family == "decoder" or not self.frame.middle):
            texts = ((*texts[0], Piece("\n"), *texts[1]),)
        is_pair = len(texts) == 2
        tokens = [self._tokens(pieces, values, num_masks) for pieces in texts]
        suffix = self.frame.suffix if is_pair else self.frame.single_suffix
        middle, prefix = self.frame.middle if is_pair else (), self.frame.prefix
        if not template.has_frame:
            prefix = suffix = ()
        overhead = len(prefix) + len(middle) + len(suffix) + len(continuation)
        overhead += max(longest - num_masks - len(continuation), 0)
        is_cut = self._cut(tokens, overhead, self._budget(num_reserved), source)
        special = [[_Token(i, Role.SPECIAL) for i in ids] for ids in (prefix, suffix)]
        first = special[0] + tokens[0] + [_Token(i, Role.SPECIAL) for i in middle]
        second = (tokens[1] if is_pair else []) + special[1]
        body, marks = _without_marks(first + second)
        if not body and not marks:
            raise DataError(
                "must come to at least one token, but template and fields are empty.",
                file=source or None,
            )
        start = self._num_before_rows(tuple(t.id for t in body), prefix)
        leading = template.num_leading_marks
        num_first = len(_without_marks(first)[0])
        segments = [self.frame.segments[0]] * num_first
        segments += [self.frame.segments[1 if is_pair else 0]] * (len(body) - num_first)
        item = EncodedInput(
            ids=tuple(t.id for t in body),
            segments=tuple(segments),
            roles=tuple(t.role for t in body),
            start=start,
            end=len(body) - len(suffix),
            slots=tuple(i for i, t in enumerate(body) if t.role is Role.MASK),
            marks=(*(start for _ in marks[:leading]), *marks[leading:]),
            starts=tuple(int(t.starts) for t in body),
            fields=tuple(t.field for t in body),
        )
        return item.followed_by(continuation, Role.LABEL), is_cut

    def _num_before_rows(self, ids: tuple[int, ...], prefix: tuple[int, ...]) -> int:
        """Return how many tokens stand in front of the first rows; a chat has its own prefix."""
        first = prefix or self.frame.prefix
        return len(first) if self.after_bos and ids[: len(first)] == first else 0

    def _tokenize(self, text: str) -> Any:
        return self.tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
            verbose=False,
        )

    def _tokens(
        self, pieces: Sequence[Piece], values: Mapping[str, str], num_masks: int
    ) -> list[_Token]:
        """Tokenize one text, stretch by stretch between masks."""
        result: list[_Token] = []
        text = ""
        spans: list[_Span] = []
        marks: list[int] = []
        for place, piece in enumerate(pieces):
            if piece.name == MARK:
                marks.append(len(text))
                continue
            if piece.name in ("mask", TOKEN):
                if piece.name == "mask":
                    mask_id, eats_space = self._mask()
                    text = text.rstrip() if eats_space else text
                    special = [_Token(mask_id, Role.MASK)] * num_masks
                else:
                    token = self.tokenizer.convert_tokens_to_ids(piece.text)
                    special = [_Token(token, Role.SPECIAL)]
                result += self._stretch(text, spans, marks) + special
                text, spans, marks = "", [], []
                continue
            content = values[piece.name] if piece.name else piece.text
            role = Role.TEMPLATE
            if piece.name:
                role = Role.LABEL if piece.name == "choice" else Role.FIELD
            spans.append((len(text), len(text) + len(content), role, place, piece.name))
            text += content
        return result + self._stretch(text, spans, marks)

    def _mask(self) -> tuple[int, bool]:
        """Return the mask token's id, and whether it takes the space before it."""
        mask_id = self.tokenizer.mask_token_id
        if mask_id is None:
            raise DataError("`{mask}` must stand for a mask token, but there is none.")
        token = self.tokenizer.added_tokens_decoder.get(mask_id)
        return mask_id, bool(token is not None and token.lstrip)

    def _stretch(
        self, text: str, spans: Sequence[_Span], marks: Sequence[int] = ()
    ) -> list[_Token]:
        """Tokenize a stretch; a token that touches a field belongs to it.

        Where a space follows a mark, words are what they would be without the mark. Elsewhere, and
        where a token would reach across, the text is cut there.
        """
        if not text:
            return [_MARK] * len(marks)
        encoded = self._tokenize(text)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        for cut in marks:
            is_crossed = any(begin < cut < stop for begin, stop in offsets)
            if 0 < cut < len(text) and (text[cut] != " " or is_crossed):
                behind = [(s[0] - cut, s[1] - cut, *s[2:]) for s in spans]
                return [
                    *self._stretch(text[:cut], spans, [m for m in marks if m <= cut]),
                    *self._stretch(text[cut:], behind, [m - cut for m in marks if m > cut]),
                ]
        tokens: list[_Token] = []
        waiting = list(marks)
        starts = word_starts(text, offsets)
        for token, (begin, stop), is_start in zip(ids, offsets, starts, strict=True):
            while waiting and (waiting[0] == 0 or waiting[0] < stop):
                tokens.append(_MARK)
                waiting.pop(0)
            touched = [s for s in spans if s[0] < stop and begin < s[1]]
            named = [s for s in touched if s[2] is not Role.TEMPLATE]
            if named:
                *_, role, place, name = named[0]
                if role is not Role.FIELD:
                    place, name = -1, ""
                is_first = not tokens or tokens[-1].place != place
                tokens.append(_Token(token, role, place, name, is_start or is_first))
            else:
                tokens.append(_Token(token, Role.TEMPLATE, starts=is_start))
        return tokens + [_MARK] * len(waiting)

    def _cut(
        self, texts: list[list[_Token]], overhead: int, budget: int | None, source: str
    ) -> bool:
        """Drop tokens from the end of the longest field until the budget holds, in place."""
        total = overhead + sum(token is not _MARK for tokens in texts for token in tokens)
        if budget is None or total <= budget:
            return False
        lengths = Counter(
            (number, token.place)
            for number, tokens in enumerate(texts)
            for token in tokens
            if token.place >= 0
        )
        fixed = total - lengths.total()
        if fixed > budget:
            raise DataError(
                f"template, special tokens and label words must fit {budget} tokens, "
                f"but take {fixed}.",
                file=source or None,
            )
        for _ in range(total - budget):
            lengths[max(lengths, key=lengths.__getitem__)] -= 1
        for number, tokens in enumerate(texts):
            seen: Counter[int] = Counter()
            kept = []
            for token in tokens:
                seen[token.place] += 1
                if token.place < 0 or seen[token.place] <= lengths[number, token.place]:
                    kept.append(token)
            tokens[:] = kept
        return True


def _without_marks(tokens: Sequence[_Token]) -> tuple[list[_Token], list[int]]:
    """Return the tokens, and the index of the one that follows each mark."""
    kept: list[_Token] = []
    marks: list[int] = []
    for token in tokens:
        if token is _MARK:
            marks.append(len(kept))
        else:
            kept.append(token)
    return kept, marks


def word_starts(text: str, offsets: Sequence[tuple[int, int]]) -> list[bool]:
    """Return which tokens start a word, by the first character of each and the one after its last.

    Words are runs of letters and digits, apostrophes inside included; every other sign is a word by
    itself. A token that is only a space belongs to the word that follows it.

    Example:
        >>> word_starts("It can't.", [(0, 2), (3, 6), (6, 7), (7, 8), (8, 9)])
        [True, True, False, False, True]
    """
    begins = {found.start() for found in _WORD.finditer(text)}
    starts: list[bool] = []
    last, is_space = 0, False
    for begin, stop in offsets:
        core = begin
        while core < stop and text[core].isspace():
            core += 1
        if core == stop:
            starts.append(True)
            is_space = True
        else:
            is_joined = is_space and core == begin
            starts.append(core in begins and core >= last and not is_joined)
            is_space = False
        last = max(last, stop)
    return starts
