"""FewGLUE: 32 training rows a task, 32 more for model selection, and SuperGLUE's validation split.

The 32 training rows of WSC are all true: the set was built for generative scoring. A classifier
cannot learn from them, so loading it needs `allow_missing_labels`. ReCoRD comes without a
validation file: `dev32` is its reported split.

Reference:
    Schick and Schütze 2021, arXiv 2009.07118; `dev32`: Liu et al. 2021, arXiv 2103.10385.
"""

from __future__ import annotations

from softprompts.tasks.base import Task
from softprompts.tasks.formats import FOLDERS, FORMATS
from softprompts.tasks.request import TaskRequest, find_folder
from softprompts.tasks.superglue import task_from_files


def load_fewglue(request: TaskRequest) -> Task:
    """Load a FewGLUE task: `data_dir` holds `CB/{train,dev32,val}.jsonl` or `fewglue/CB/…`.

    Raises:
        DataError: if `data_dir`, files or rows are missing or wrong.
    """
    short = request.name.rpartition("/")[2]
    folder = find_folder(request, "fewglue", FOLDERS[short])
    names = {"train": "train", "held_out": "dev32", "validation": "val"}
    if short == "record":
        names = {"train": "train", "validation": "dev32"}
    files = {split: folder / f"{name}.jsonl" for split, name in names.items()}
    return task_from_files(request, FORMATS[request.name], files)
