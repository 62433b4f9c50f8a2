"""Word vectors from a file: what is read, what is refused, and who is near whom by them."""

from __future__ import annotations

import gzip
import hashlib
import re

import pytest
import torch

from softprompts.errors import DataError, RecipeError, SoftPromptsError, StorageError
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.regularizers.neighbours import Neighbours, neighbours_of
from softprompts.regularizers.perturbations.word_substitution import WordSubstitution
from softprompts.regularizers.word_vectors import read_word_vectors
from softprompts.training.regularizing import build_regularizers

LINES = "good 1 0 0.5\nbad -1e0 .25 0\n\nGood 0 1 0\nhouse 3 4 5\n"


def written(folder, text, name="vectors.txt"):
    path = folder / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def recipe_with(path, **more):
    perturbation = {"kind": "word-substitution", "word_vectors": str(path), **more}
    return {
        "backbone": {"name": "minilm"},
        "task": {"name": "bundled/sentiment"},
        "regularizers": [{"kind": "ptp", "perturbation": perturbation}],
    }


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
@pytest.mark.parametrize("first", ["", "4 3\n"])
def test_wanted_words_are_read(tmp_path, name, first):
    places, vectors = read_word_vectors(
        written(tmp_path, first + LINES, name), {"bad", "Good", "x"}
    )
    assert places == {"bad": 0, "Good": 1}
    assert vectors.tolist() == [[-1.0, 0.25, 0.0], [0.0, 1.0, 0.0]]
    assert vectors.dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("good 1 2\nbad 1 x\n", ":2: the line must be a word and its numbers, but has 'x'."),
        ("good 1 2\n\nbad 1 2 3\n", ":3: the vector must have 2 numbers, .* but has 3."),
        ("good 1 2\nbad 1\n", ":2: the vector must have 2 numbers, .* but has 1."),
        ("good 1 2\nbad\n", ":2: the line must be a word and its numbers, but has no number."),
        ("good 1 2\nbad 1 nan\n", ":2: numbers must be finite in float32, but one is 'nan'."),
        ("good 1 2\nbad 1e99 1\n", ":2: numbers must be finite in float32, but one is '1e99'."),
        ("good 1\nbad 1\ngood 1\n", ":3: the word must be new, but 'good' is on line 1 too."),
        (b"good 1\nb\xff 1\n", ":2: the line must be UTF-8, but has byte 0xff."),
    ],
)
@pytest.mark.parametrize("name", ["v.txt", "v.gz"])
def test_a_bad_line_is_said_with_file_and_number(tmp_path, text, reason, name):
    path = written(tmp_path, text, name)
    with pytest.raises(DataError, match="^" + re.escape(str(path)) + reason + "$") as caught:
        read_word_vectors(path, {"good"})
    assert caught.value.file == path


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(StorageError, match=r"none.txt could not be read: No such file"):
        read_word_vectors(tmp_path / "none.txt", ())
    (tmp_path / "v.gz").write_bytes(b"good 1 2\n")
    with pytest.raises(StorageError, match=r"v.gz could not be read: Not a gzipped file"):
        read_word_vectors(tmp_path / "v.gz", ())
    whole = gzip.compress(LINES.encode() * 50)
    for broken in (whole[:-20], whole[:30] + b"\xff\xff\xff" + whole[33:]):
        (tmp_path / "v.gz").write_bytes(broken)
        with pytest.raises(SoftPromptsError, match=r"v.gz"):
            read_word_vectors(tmp_path / "v.gz", ())


def random_file(folder, words, width=5):
    """Write vectors of words, and of some that no tokenizer has; return the path and the rows."""
    generator = torch.Generator().manual_seed(2)
    table = {word: torch.randn(width, generator=generator) for word in [*words, "zzxqj"]}
    lines = (f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in table.items())
    return written(folder, "".join(lines)), table


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_who_is_near_is_said_by_the_file(tiny, tmp_path, kind):
    """Words without a vector are neither swapped nor put in; lower case stands for upper."""
    backbone = tiny(kind)
    own = neighbours_of(backbone).words
    path, table = random_file(tmp_path, list(dict.fromkeys(t.lower() for t in own.values()))[::2])
    near = neighbours_of(backbone, str(path))
    assert near is neighbours_of(backbone, str(path))
    assert near.words == {i: text for i, text in own.items() if text.lower() in table}
    for token, found in zip(near.words, near.find(list(near.words), 4), strict=True):
        text = near.words[token]
        cosines = {
            i: float(torch.cosine_similarity(table[text.lower()], table[t.lower()], dim=0))
            for i, t in near.words.items()
            if t.lower() != text.lower()
            and (t.islower(), t.isupper()) == (text.islower(), text.isupper())
        }
        best = sorted(cosines.values(), reverse=True)[:4]
        assert [n.cosine for n in found] == pytest.approx(best, abs=1e-5)
        assert [cosines[n.id] for n in found] == pytest.approx(best, abs=1e-5)


def test_a_file_without_words_of_the_backbone_is_refused(tiny, tmp_path):
    path = written(tmp_path, "zzxqj 1 2\n")
    with pytest.raises(DataError, match=r"must have vectors of words that are one token .* none"):
        WordSubstitution(tiny("bert"), word_vectors=str(path))


def test_a_file_that_changed_is_refused(tiny, tmp_path):
    word = next(iter(neighbours_of(tiny("bert")).words.values()))
    path = written(tmp_path, f"{word} 1 2\n")
    (regularizer,) = resolve(parse_run(recipe_with(path))).regularizers
    digest = regularizer.options["perturbation"]["word_vectors_digest"]
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    WordSubstitution(tiny("bert"), word_vectors=str(path), word_vectors_digest=digest)
    path.write_text(f"{word} 1 3\n")
    with pytest.raises(StorageError, match=f"with digest {digest}, but has digest "):
        WordSubstitution(tiny("bert"), word_vectors=str(path), word_vectors_digest=digest)


def test_the_content_is_part_of_the_identity_and_the_place_is_not(tmp_path):
    one, same, other = (
        written(tmp_path, text, name)
        for text, name in ((LINES, "a.txt"), (LINES, "b.txt"), (LINES + "x 1 2 3\n", "c.txt"))
    )
    found = [identity(parse_run(recipe_with(path))) for path in (one, same, other)]
    assert found[0] == found[1] != found[2]
    pinned = resolve(parse_run(recipe_with(one)))
    assert resolve(pinned) == pinned
    for path in (one, same, other):
        path.unlink()
    assert identity(parse_run(pinned.model_dump(mode="json"))) == found[0]


def test_what_is_wrong_with_the_option_is_said(tmp_path):
    field = "`regularizers.0.perturbation.word_vectors"
    with pytest.raises(RecipeError, match=field + r"` must be a file, but .*none.* No such file"):
        parse_run(recipe_with(tmp_path / "none"))
    with pytest.raises(RecipeError, match=field + r"` must be a file, but .* Is a directory"):
        parse_run(recipe_with(tmp_path))
    alone = recipe_with(tmp_path, word_vectors_digest="0" * 16)
    del alone["regularizers"][0]["perturbation"]["word_vectors"]
    with pytest.raises(RecipeError, match=field + r"_digest` must be left out .* '0{16}'"):
        parse_run(alone)


def test_options_that_came_late_keep_old_identities():
    """The pins are of a release that had none of these options."""
    for perturbation, pin in (
        ("gaussian-noise", "9bee78480bd32fd5"),
        ("word-substitution", "1cec884758d3b291"),
    ):
        recipe = recipe_with("x")
        recipe["regularizers"][0] |= {"perturbation": perturbation, "weight": 1.0}
        absolute = {**recipe, "prompt": {"unit": "absolute"}}
        assert identity(parse_run(absolute)) == pin
        for more in ({"instances": "perturbed"}, {"min_similarity": 0.5}):
            changed = {**recipe, "prompt": {"method": "adap-ins-pos"}}
            before = identity(parse_run(changed))
            (ptp,) = recipe["regularizers"]
            if "instances" in more:
                changed["regularizers"] = [{**ptp, **more}]
            elif perturbation == "word-substitution":
                changed["regularizers"] = [{**ptp, "perturbation": {"kind": perturbation, **more}}]
            else:
                continue
            assert identity(parse_run(changed)) != before


def test_the_recipe_reaches_the_perturbation(tiny, tmp_path):
    word = next(iter(neighbours_of(tiny("bert")).words.values()))
    path = written(tmp_path, f"{word} 1 2\n")
    config = resolve(parse_run(recipe_with(path, min_similarity=0.7)))
    (built,) = build_regularizers(config, tiny("bert"))
    assert list(built.perturbation.neighbours.words.values()) == [word]
    assert built.perturbation.min_similarity == 0.7


class Vocabulary:
    """A backbone and its tokenizer, with any words and short embeddings."""

    def __init__(self, tokens, width=8):
        self.tokens, size = list(tokens), len(tokens)
        self.table = torch.randn(size, width, generator=torch.Generator().manual_seed(1))
        self.vocabulary_size, self.device, self.is_frozen = size, torch.device("cpu"), True
        self.tokenizer, self.all_special_ids, self.added_tokens_decoder = self, [0], {}

    def __len__(self):
        return len(self.tokens)

    def convert_ids_to_tokens(self, ids):
        return [self.tokens[i] for i in ids]

    def embed(self, ids):
        return self.table[ids]


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Keeps the bytes of the largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(one, torch.Tensor):
                self.size = max(self.size, one.untyped_storage().nbytes())
        return found


def test_neighbours_among_a_quarter_million_words_fit_memory():
    """No tensor is larger than a block's; one of all words and the asked ones is 1 GB."""
    backbone = Vocabulary(
        ["".join(chr(97 + i // 26**place % 26) for place in range(4)) for i in range(250_000)]
    )
    near = Neighbours(backbone)
    asked = list(range(1, 250_000, 250))
    assert len(near.words) > 240_000
    with Largest() as largest:
        found = near.find(asked, 3)
    assert largest.size <= 256 * 8192 * 8
    table = torch.nn.functional.normalize(backbone.table, dim=1)
    for token, own in list(zip(asked, found, strict=True))[::100]:
        cosines = table @ table[token]
        cosines[[i for i in range(len(backbone)) if i not in near.words or i == token]] = -2
        assert [n.id for n in own] == cosines.topk(3).indices.tolist()


def test_a_neighbour_is_another_word_in_the_same_case():
    backbone = Vocabulary(["[PAD]", "good", "Good", "GOOD", "bad", "Bad", "BAD", "fine", "the"])
    near = Neighbours(backbone)
    found = {near.words[i]: near.find([i], 9)[0] for i in near.words}
    texts = {word: {near.words[n.id] for n in own} for word, own in found.items()}
    assert texts == {
        "good": {"bad", "fine"},
        "bad": {"good", "fine"},
        "fine": {"good", "bad"},
        "Good": {"Bad"},
        "Bad": {"Good"},
        "GOOD": {"BAD"},
        "BAD": {"GOOD"},
    }
