"""One update of a prompt by two processes; the first writes the rows. Started by a test."""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.utils.data import DataLoader

import softprompts as sp


def main(folder: str, place: str) -> None:
    """Train on four examples, two a process, and write the rows."""
    accelerator = Accelerator(cpu=True)
    backbone = sp.load_backbone(folder)
    model = sp.SoftPromptModel(backbone, sp.PromptConfig(length=3), with_logits=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loader = DataLoader(torch.arange(20, 48).view(4, 7), batch_size=4 // accelerator.num_processes)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for ids in loader:
        loss = wrapped(ids, labels=ids).loss
        accelerator.backward(loss)
        optimizer.step()
    if accelerator.is_main_process:
        kept = accelerator.unwrap_model(wrapped)
        count = torch.tensor([accelerator.num_processes])
        save_file({"rows": kept.prompt.bake(), "processes": count}, place)
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
