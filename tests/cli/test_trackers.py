"""`--tracker`: metrics go to TensorBoard too, each once, and never in the way of training."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_material import interrupted

from softprompts.cli.main import main
from softprompts.lab.tracking import journal
from softprompts.lab.tracking.journal import numbers
from softprompts.lab.tracking.registry import TRACKERS
from softprompts.lab.tracking.tensorboard import TensorBoard

pytest.importorskip("tensorboard", reason="TensorBoard is not installed")

LINES = "metrics.jsonl"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tracker has failed yet."""
    monkeypatch.setattr(journal, "_failed", set())


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read all event files of a run, in the order of writing.

    TensorBoard reads files by name, thus by the second in which they were opened; a run that goes
    on within that second would be read the wrong way round.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [
            (event.step, event.value)
            for event in sorted(events.Scalars(tag), key=lambda event: event.wall_time)
        ]
        for tag in events.Tags()["scalars"]
    }


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what a run's metrics say, as TensorBoard has it."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (run / LINES).read_text().splitlines():
        record = json.loads(line)
        for name, value in numbers(record).items():
            found.setdefault(name, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    return found


def of_training(found: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in found.items() if not name.startswith("validation/")}


def test_a_run_is_in_tensorboard_as_in_its_folder(recipe, run, tmp_path, capsys):
    out, plain = tmp_path / "out", tmp_path / "plain"
    path = recipe(run)
    assert main(["train", path, "--out", str(out), "--tracker", "tensorboard"]) == 0
    assert main(["train", path, "--out", str(plain)]) == 0
    assert (out / LINES).read_text() == (plain / LINES).read_text()
    assert not (plain / "tracking").exists(), "off unless asked for"
    place = out / "tracking" / "tensorboard" / "prompt-tuning" / "files" / "seed-3"
    found = scalars(place)
    assert {"loss", "gradient_norm", "held_out/score", "validation/score"} <= set(found)
    assert of_training(found) == logged(out)
    result = json.loads((out / "result.json").read_text())
    assert found["validation/score"] == [(result["steps"], pytest.approx(result["score"]))]
    (settings,) = place.rglob("hparams.yml")
    text = settings.read_text()
    assert "training.batch_size: 4" in text
    assert f"identity: {result['identity']}" in text


@pytest.mark.parametrize("stop", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_a_run_that_goes_on_is_tracked_once(recipe, run, tmp_path, stop):
    """Interrupted behind a checkpoint, so that updates are done again."""
    run["training"]["checkpoint_every_steps"] = 4
    path, out = recipe(run), tmp_path / "out"
    arguments = ["train", path, "--out", str(out), "--tracker", "tensorboard"]
    assert interrupted(arguments, stop) == 130
    place = out / "tracking" / "tensorboard" / "prompt-tuning" / "files" / "seed-3"
    early = of_training(scalars(place))
    assert len(early.get("loss", [])) == (4 if stop > 4 else 0), "what is durable"
    assert main([*arguments, "--resume"]) == 0
    found = of_training(scalars(place))
    assert Counter(step for step, _ in found["loss"]) == Counter(range(1, 7))
    assert found == logged(out)
    assert len(list(place.rglob("hparams.yml"))) == 1


def test_each_run_of_a_pack_is_tracked_by_itself(recipe, run, tmp_path):
    del run["seed"]
    run["training"]["checkpoint_every_steps"] = 4
    variants = {"plain": {}, "../odd one": {"prompt.length": 2}}
    study = {"name": "tracked", "base": run, "variants": variants, "seeds": 2, "pack_size": 2}
    out = tmp_path / "out"
    arguments = ["study", recipe(study), "--out", str(out), "--tracker", "tensorboard"]
    arguments += ["--no-report"]
    place = out / "tracking" / "tensorboard"
    assert interrupted(arguments, 9) == 130  # the first pack's fifth update
    for seed in (0, 1):
        assert len(scalars(place / f"plain/files/seed-{seed}")["loss"]) == 4
    assert main(arguments) == 0
    by_loss = {
        repr(logged(folder)["loss"][0]): logged(folder) for folder in (out / "runs").iterdir()
    }
    assert len(by_loss) == 4
    names = [f"{v}/files/seed-{s}" for v in ("plain", "--odd-one") for s in (0, 1)]
    for name in names:
        found = of_training(scalars(place / name))
        assert found in list(by_loss.values()), name
    assert not (tmp_path / "odd one").exists()


@pytest.mark.filterwarnings("default::softprompts.errors.SoftPromptsWarning")
def test_a_tracker_that_fails_is_left_out_and_training_goes_on(
    recipe, run, tmp_path, monkeypatch, capsys
):
    def log(self: Any, lines: Any) -> None:
        raise OSError("no room\nfor events")

    monkeypatch.setattr(TensorBoard, "log", log)
    out = tmp_path / "out"
    assert main(["train", recipe(run), "--out", str(out), "--tracker", "tensorboard"]) == 0
    said = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: tracker")
    ]
    assert said == [
        "warning: tracker tensorboard failed and is left out from here on, while training goes "
        "on: OSError: no room for events"
    ]
    assert (out / "result.json").exists()


def test_what_cannot_track_is_refused(recipe, run, tmp_path, capsys, monkeypatch):
    path, out = recipe(run), tmp_path / "out"
    real = importlib.util.find_spec
    absent = {"wandb"}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in absent else real(name, *rest),
    )
    for arguments, text in (
        (["--tracker", "wandb"], "tracker wandb must have the package wandb, but it is not"),
        (["--tracker", "tensorbord"], "Did you mean 'tensorboard'?"),
    ):
        assert main(["train", path, "--out", str(out), *arguments]) == 2
        assert text in capsys.readouterr().err
    absent.add("accelerate")
    assert main(["train", path, "--out", str(out), "--tracker", "tensorboard"]) == 2
    assert "install softprompts with its extra `tracking`" in capsys.readouterr().err
    assert not out.exists()


def test_every_tracker_is_one_of_ours_and_names_its_package():
    for name in TRACKERS.names():
        assert TRACKERS.load(name).packages[-1] == name
