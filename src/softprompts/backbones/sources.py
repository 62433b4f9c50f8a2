"""From a backbone's name to a checked local folder: short names, folders and hub ids.

Nothing here imports torch. A hub id is downloaded once into the hub's own cache; from there on
it is a folder like any other, so that there is one way to load and no network after this room.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from softprompts.backbones.registry import BACKBONES, Source
from softprompts.errors import BackboneError
from softprompts.storage import open_file, read_file

GGUF_SUFFIX = ".gguf"
GIVEN = "given:"
"""How the name begins of a model that the caller gave; see `given.py`."""

_PATTERNS = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*-of-*.safetensors"]
VOLATILE_KEYS = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype"})
"""Of a configuration, what says nothing of the weights."""

_NUM_SAMPLES = 64
_SAMPLE_BYTES = 4096

_DEPTHS = frozenset(
    {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"}
    | {"encoder_layers", "decoder_layers"}
)
"""What configurations call a number of layers."""
_FEW_LAYERS = 200
"""So many are built without asking: layers may share weights."""


def resolve(name: str, revision: str | None = None) -> Source:
    """Return the source of a backbone. A short name wins over a folder of the same name.

    It is a registered name, a local folder, a GGUF file or a hub id, which alone may have a
    `revision`. The contents are not checked yet.
    """
    if name in BACKBONES:
        _refuse_revision(revision, name, "a short name")
        source = BACKBONES.entry(name).load()()
        assert isinstance(source, Source)
        return source
    if name.startswith(GIVEN):
        raise BackboneError(
            f"backbone must be given from Python, as it was before, but is {name!r}: that is no "
            "name to load it by."
        )
    try:
        path = Path(name).expanduser()
        has_folder, has_file = bool(name) and path.is_dir(), bool(name) and path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # such as a name that no folder may have
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise BackboneError(
            f"backbone folder must be a folder, but is {name!r:.80}: {reason}."
        ) from error
    if has_folder:
        _refuse_revision(revision, name, "a local folder")
        return Source(name, path)
    if has_file and path.suffix.lower() == GGUF_SUFFIX:
        _refuse_revision(revision, name, "a file")
        return Source(name, path.parent, file=path)
    if not name or has_file or _is_path(name):
        problem = "is a file" if has_file else "no such folder exists"
        raise BackboneError(f"backbone folder must be a folder, but is {name!r}: {problem}.")
    return Source(name, download(name, revision))


def _refuse_revision(revision: str | None, name: str, kind: str) -> None:
    if revision is not None:
        raise BackboneError(
            f"`revision` must be left out for {name!r}, which is {kind}: only hub ids have "
            f"revisions, but is {revision!r}."
        )


def download(hub_id: str, revision: str | None = None) -> Path:
    """Return the cached folder of a hub model, downloading what is missing.

    Only files at the top of the repository are taken, and never pickled weights.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_id, revision=revision, allow_patterns=_PATTERNS, ignore_patterns="*/*"
            )
        )
    except Exception as error:  # the hub's network library, and so its errors, vary by version
        near = difflib.get_close_matches(hub_id, BACKBONES.names(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise BackboneError(
            f"backbone must be a short name ({', '.join(BACKBONES.names())}), a local folder or a "
            f"hub id within reach, but is {hub_id!r}"
            f"{'' if revision is None else f' at revision {revision!r}'}.{hint} From the hub: "
            f"{first_line(error)}"
        ) from error


def check_folder(source: Source) -> dict[str, Any]:
    """Return the parsed `config.json` after checking that the folder can be loaded safely.

    Weights must be whole and in safetensors, without an adapter, and have the pinned digest.
    """
    config = _read_json(source.folder / "config.json", source)
    if (source.folder / "adapter_config.json").exists():
        raise BackboneError(
            f"backbone {source.name!r} must be a bare model, but {source.folder} has "
            "adapter_config.json: merge the adapter into the model and save that."
        )
    files = weight_files(source)
    _check_values(config, sum(len(_read_header(file)) for file in files), source)
    check_digest(source, files[0])
    return config


def _check_values(config: Mapping[str, Any], num_tensors: int, source: Source) -> None:
    """Check what would break transformers, or make it build what no weights are there for."""
    place = source.folder / "config.json"
    if not isinstance(config.get("quantization_config", {}), dict | None):
        raise BackboneError(
            f"`quantization_config` of {place} must be a mapping, but is "
            f"{config['quantization_config']!r:.60}."
        )
    names = config.get("architectures")
    if not isinstance(names, list | None) or not all(isinstance(one, str) for one in names or ()):
        raise BackboneError(
            f"`architectures` of {place} must be a list of names, but is {names!r:.60}."
        )
    for key, value in config.items():
        if isinstance(value, dict):
            _check_values(value, num_tensors, source)
        elif key in _DEPTHS and isinstance(value, int) and value > max(num_tensors, _FEW_LAYERS):
            raise BackboneError(
                f"`{key}` of {place} must be a number of layers that its {num_tensors} tensors can "
                f"be of, but is {value}."
            )


def check_digest(source: Source, file: Path) -> str | None:
    """Return the pinned digest of a file after checking it; `None` where nothing is pinned."""
    if source.sha256 is None:
        return None
    with open_file(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != source.sha256:
        raise BackboneError(
            f"backbone {source.name!r}: sha256 of {file} must be {source.sha256}, but is {digest}."
        )
    return digest


def weight_files(source: Source) -> tuple[Path, ...]:
    """Return `model.safetensors` of a folder, or the shards that its index names, in order."""
    single = source.folder / "model.safetensors"
    index = source.folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if index.is_file():
        shards = _read_json(index, source).get("weight_map", {})
        if not isinstance(shards, dict) or not all(isinstance(n, str) for n in shards.values()):
            raise BackboneError(
                f"backbone {source.name!r}: `weight_map` of {index} must be a mapping of names to "
                f"files, but is {shards!r:.60}."
            )
        outside = [name for name in shards.values() if Path(name).name != name]
        if outside:
            raise BackboneError(
                f"backbone {source.name!r}: `weight_map` of {index} must name files beside it, but "
                f"names {outside[0]!r:.60}."
            )
        files = tuple(source.folder / name for name in sorted(set(shards.values())))
        missing = [file.name for file in files if not file.is_file()]
        if files and not missing:
            return files
        raise BackboneError(
            f"backbone {source.name!r}: {index} must name files that exist, but "
            f"{', '.join(missing) or 'it names none'}{' is missing' if missing else ''}."
        )
    pickled = sorted(p.name for p in source.folder.glob("*") if p.suffix in {".bin", ".pt", ".pth"})
    reason = f"only {', '.join(pickled)}, which is pickled and may run code" if pickled else "none"
    raise BackboneError(
        f"backbone {source.name!r}: {source.folder} must have model.safetensors, but has {reason}."
    )


def fingerprint(source: Source, config: dict[str, Any]) -> str:
    """Return the identity of a backbone's weights without reading all of them.

    It covers the configuration, and per weight file its size, its header (names, shapes, dtypes)
    and evenly spaced samples of its contents, so two fine-tunings of one model differ.

    It is a sha256 in hexadecimal, unless the source has its own, or a pinned digest.
    """
    known = source.identity or source.sha256
    if known is not None:
        return known
    kept = {key: value for key, value in config.items() if key not in VOLATILE_KEYS}
    state = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for file in weight_files(source):
        size = file.stat().st_size
        header = _read_header(file)
        state.update(f"\n{size}\n".encode() + json.dumps(header, sort_keys=True).encode())
        for part in sampled(file):
            state.update(part)
    return state.hexdigest()


def sampled(file: Path) -> Iterator[bytes]:
    """Yield evenly spaced parts of a file, its end among them."""
    size = file.stat().st_size
    with open_file(file) as stream:
        for sample in range(_NUM_SAMPLES):
            stream.seek(max(0, size - _SAMPLE_BYTES) * (sample + 1) // _NUM_SAMPLES)
            yield stream.read(_SAMPLE_BYTES)


def first_line(error: BaseException) -> str:
    """Return an error's first line that has text, or else its class, ended by a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if line.endswith((".", "!", "?")) else line + "."


def _is_path(name: str) -> bool:
    starts = name.startswith((".", "/", "~"))
    return starts or "\\" in name or name.count("/") > 1 or name.endswith("/")


def _read_json(path: Path, source: Source) -> dict[str, Any]:
    if not path.is_file():
        raise BackboneError(
            f"backbone {source.name!r}: {source.folder} must have {path.name}, but has none."
        )
    try:
        content = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        reason = first_line(error)
        raise BackboneError(f"{path} must be JSON, but is not: {reason}") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path} must be a JSON object, but is {content!r:.60}.")
    return content


def _read_header(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    with open_file(file) as stream:
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(length) if length <= size - 8 else b""
    try:
        header = json.loads(raw)
        tensors = [about for name, about in header.items() if name != "__metadata__"]
        end = max((about["data_offsets"][1] for about in tensors), default=0)
    except (LookupError, RecursionError, ValueError, AttributeError, TypeError) as error:
        raise BackboneError(f"{file} must be a safetensors file, but its header is bad.") from error
    if 8 + length + end != size:
        raise BackboneError(
            f"{file} must have {8 + length + end} bytes, as its header says, but has {size}."
        )
    assert isinstance(header, dict)
    return header
