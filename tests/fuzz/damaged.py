"""What is damaged, made once on a tiny backbone, and how each kind is damaged and read."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
import yaml
from mutations import STRANGE, TAGS, damaged, said, torn
from safetensors.torch import save_file

import softprompts
from backbones import build
from softprompts.backbones.gguf_header import read_header
from softprompts.backbones.loading import load_backbone
from softprompts.backbones.registry import Source
from softprompts.backbones.sources import check_folder
from softprompts.interop.peft import ADAPTER_FILE, CONFIG_FILE, from_peft
from softprompts.interop.peft import ROWS as ROWS_NAME
from softprompts.lab.reports.records import read_lines
from softprompts.lab.reports.report import write_report
from softprompts.lab.reports.study_record import read_study
from softprompts.model import SoftPromptModel
from softprompts.recipes.grid import expand
from softprompts.recipes.loading import load_recipe, shipped_recipes
from softprompts.recipes.schema import PromptConfig
from softprompts.recipes.study import StudyConfig
from softprompts.results import load
from softprompts.tasks.loading import load_task
from softprompts.training.journal import RunFolder, read_about

ROWS = [
    {"text": f"the film was {word}", "label": label, "note": number, "more": None}
    for number, (word, label) in enumerate([("fine", "good"), ("grim", "bad")] * 6)
]
OPTIONS = {"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}"}
STUDY = {
    "variants": {"plain": {}, "stable": {"prompt.method": "stable"}},
    "grid": {"training.learning_rate": [0.1, 0.3]},
    "seeds": 1,
    "tune": None,
}


class Material:
    """A backbone, rows, a run, a study and exports."""

    def __init__(self, place: Path) -> None:
        torch.set_num_threads(1)
        self.place = place / "made"
        self.backbone_folder = build("bert", self.place / "bert")
        self.decoder_folder = build("gpt2", self.place / "gpt2")
        self.backbone = load_backbone(str(self.backbone_folder))
        self.decoder = load_backbone(str(self.decoder_folder))
        data = self.place / "data"
        data.mkdir()
        for name in ("train", "val"):
            (data / f"{name}.jsonl").write_text("".join(said(row) + "\n" for row in ROWS))
        self.recipe: dict[str, Any] = {
            "backbone": {"name": str(self.backbone_folder)},
            "task": {"name": "files", "data_dir": str(data), "options": OPTIONS},
            "readout": "linear",
            "prompt": {"method": "prompt-tuning", "length": 4},
            "regularizers": [{"kind": "ptp", "perturbation": "gaussian-noise", "weight": 0.3}],
            "training": {"steps": 2, "batch_size": 4, "num_evaluations": 1},
        }
        self.recipes = [file.read_bytes() for file in shipped_recipes().values()]
        self.recipes += [said(self.recipe).encode(), said({"base": self.recipe, **STUDY}).encode()]
        self.run, self.study = self.place / "run", self.place / "study"
        self._train()

    def _train(self) -> None:
        from softprompts.cli.main import main

        path = self.place / "recipe.yaml"
        path.write_text(said(self.recipe))
        assert main(["train", str(path), "--out", str(self.run)]) == 0
        study = {"base": self.recipe, "variants": STUDY["variants"], "seeds": 2}
        path.write_text(said(study))
        assert main(["study", str(path), "--out", str(self.study)]) == 0
        self.prompts, self.adapter = self.place / "prompts", self.place / "adapter"
        config = PromptConfig(method="prompt-tuning", length=4)
        SoftPromptModel(self.decoder, config).save_pretrained(self.prompts)
        (self.prompts / "README.md").write_text("---\nlibrary_name: softprompts\n---\n")
        self.adapter.mkdir()
        save_file({ROWS_NAME: torch.ones(4, 32)}, self.adapter / ADAPTER_FILE)
        about = {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": str(self.decoder_folder)}
        (self.adapter / CONFIG_FILE).write_text(said({**about, "num_virtual_tokens": 4}))
        self.gguf = gguf_bytes(self.place / "tiny.gguf")

    def recipes_case(self, draw: random.Random, folder: Path) -> None:
        """Read a recipe or study."""
        content, how = draw.choice(self.recipes), draw.randrange(4)
        if how == 0:
            content = torn(content, draw)
        elif how == 1:
            lines = content.split(b"\n")
            place = draw.randrange(len(lines))
            tag = draw.choice(TAGS).encode()
            lines[place] = lines[place].partition(b":")[0] + b": " + tag
            content = b"\n".join(lines)
        else:
            content = said(damaged(yaml.safe_load(content), draw)).encode()
        (folder / "recipe.yaml").write_bytes(content)
        found = load_recipe(folder / "recipe.yaml")
        if isinstance(found, StudyConfig):
            expand(found)

    def rows_case(self, draw: random.Random, folder: Path) -> None:
        """Read rows as the task `files`."""
        kind = draw.choice(("jsonl", "json", "csv", "parquet"))
        for name in ("train", "val"):
            rows = damaged(ROWS, draw)
            (folder / f"{name}.{kind}").write_bytes(encoded(rows, kind, draw))
        options: Any = {"train": f"train.{kind}", "validation": f"val.{kind}", "template": "{text}"}
        if draw.randrange(4) == 0:
            options = damaged(options, draw)
        load_task("files", data_dir=folder, options=options, skip_bad_rows=draw.random() < 0.3)

    def folders_case(self, draw: random.Random, folder: Path) -> None:
        """Read the folder of a run, or that of a study."""
        is_run = draw.random() < 0.6
        copy = folder / "out"
        shutil.copytree(self.run if is_run else self.study, copy)
        damage_one(copy, draw)
        if not is_run:
            read_study(copy)
            if draw.random() < 0.15:
                write_report(copy)
            return
        about = read_about(copy)
        read_lines(copy / "metrics.jsonl")
        if draw.random() < 0.3:
            (copy / "result.json").unlink(missing_ok=True)
            with RunFolder(copy, about) as kept:
                kept.restore()
        else:
            load(copy, self.backbone)

    def headers_case(self, draw: random.Random, folder: Path) -> None:
        """Read the header of a GGUF file, or configuration and header of a folder."""
        if draw.random() < 0.5:
            head = torn(self.gguf[:700], draw)
            (folder / "tiny.gguf").write_bytes(head + self.gguf[700:])
            read_header(folder / "tiny.gguf")
            return
        copy = folder / "bert"
        shutil.copytree(self.backbone_folder, copy)
        if draw.random() < 0.5:
            weights = copy / "model.safetensors"
            content = weights.read_bytes()
            weights.write_bytes(torn(content[:2000], draw) + content[2000:])
        else:
            config = json.loads((copy / "config.json").read_text())
            (copy / "config.json").write_text(said(damaged(config, draw)))
        check_folder(Source(str(copy), copy))
        if draw.random() < 0.3:
            load_backbone(str(copy))

    def exports_case(self, draw: random.Random, folder: Path) -> None:
        """Read an exported folder."""
        is_ours = draw.random() < 0.5
        copy = folder / "export"
        shutil.copytree(self.prompts if is_ours else self.adapter, copy)
        damage_one(copy, draw)
        if is_ours:
            SoftPromptModel.from_pretrained(copy, self.decoder)
        else:
            from_peft(copy, self.decoder)


def make(place: Path) -> dict[str, Callable[[random.Random, Path], None]]:
    """Return how each kind of case is read, after making what they damage."""
    made = Material(place)
    return {
        "recipes": made.recipes_case,
        "rows": made.rows_case,
        "folders": made.folders_case,
        "headers": made.headers_case,
        "exports": made.exports_case,
    }


def damage_one(folder: Path, draw: random.Random) -> None:
    """Damage one file of a folder, or remove it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    path = draw.choice(files)
    content, how = path.read_bytes(), draw.randrange(5)
    if how == 0:
        path.unlink()
    elif how == 1 or path.suffix not in (".json", ".jsonl"):
        path.write_bytes(torn(content, draw))
    elif path.suffix == ".json":
        path.write_text(said(damaged(json.loads(content), draw)))
    else:
        lines = [json.loads(line) for line in content.splitlines()]
        place = draw.randrange(len(lines))
        lines[place] = damaged(lines[place], draw)
        path.write_text("".join(said(line) + "\n" for line in lines))


def encoded(rows: Any, kind: str, draw: random.Random) -> bytes:
    """Return rows as a file of a kind, sometimes torn."""
    rows = rows if isinstance(rows, list) else [rows]
    if kind == "json":
        content = said(rows).encode()
    elif kind == "jsonl":
        content = "".join(said(row) + "\n" for row in rows).encode()
    elif kind == "csv":
        text = io.StringIO()
        csv.writer(text, escapechar="\\").writerows(
            [["text", "label"]]
            + [list(row.values()) if isinstance(row, dict) else [row] for row in rows]
        )
        content = text.getvalue().encode("utf-8", "surrogatepass")
    else:
        sink = io.BytesIO()
        column = draw.choice([value for value in STRANGE if not isinstance(value, list | dict)])
        table = {"text": ["a", "b"], "label": ["x", "y"], "more": [None, None]}
        if isinstance(column, str) and column != "\ud800":
            table[draw.choice(("text", "label"))] = ["a", column]
        elif isinstance(column, float):
            table[draw.choice(("text", "label"))] = [column, column]  # type: ignore[list-item]
        pyarrow.parquet.write_table(pyarrow.table(table), sink)
        content = sink.getvalue()
    return torn(content, draw) if draw.random() < 0.4 else content


def gguf_bytes(path: Path) -> bytes:
    """Return a small GGUF file."""
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    for number in range(4):
        writer.add_tensor(f"blk.{number}.weight", numpy.ones((4, 32), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


assert softprompts  # imported before anything is watched
