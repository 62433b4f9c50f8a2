"""`softprompts list` and `softprompts validate`, and what the command line does with errors."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from softprompts.cli import main as main_module
from softprompts.cli.list import KINDS
from softprompts.cli.main import main, verbs

ENTRY = "import sys; from softprompts.cli.main import main; sys.exit(main())"
RUN = "backbone: {name: minilm}\ntask: {name: bundled/sentiment}\n"


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    path = tmp_path / "wrong.yaml"
    path.write_text(RUN + "seed: -1\ntrainig: 3\n")
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_list_prints_every_kind_with_names_and_summaries(capsys, kind):
    assert main(["list", kind]) == 0
    text = capsys.readouterr().out
    assert main(["list", kind, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert list(found) == [kind]
    assert text.splitlines()[0] == kind
    assert len(found[kind]) >= 1
    assert len(text.splitlines()) == 1 + len(found[kind])
    for item, line in zip(found[kind], text.splitlines()[1:], strict=True):
        assert line.split()[0] == item["name"]
        assert item["summary"] in line


def test_list_prints_all_kinds_when_none_is_given(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert list(found) == list(KINDS)
    assert {item["name"] for item in found["methods"]} >= {"p-tuning", "residual", "head-only"}
    assert "minilm" in {item["name"] for item in found["backbones"]}
    bottleneck = next(r for r in found["rows"] if r["name"] == "residual")["options"]["bottleneck"]
    assert bottleneck["default"] == 400
    cb = next(task for task in found["tasks"] if task["name"] == "superglue/cb")
    assert cb["metrics"] == ["accuracy", "macro-f1"]
    assert len(cb["labels"]) == 3


def test_list_refuses_an_unknown_kind(capsys):
    assert main(["list", "method"]) == 2
    captured = capsys.readouterr()

    assert captured.out == ""
    assert captured.err.startswith("error: kind must be one of methods, tasks, ")
    assert "Did you mean 'methods' or 'depths'?" in captured.err


def test_validate_says_what_a_recipe_is(capsys, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)

    assert main(["validate", "quickstart"]) == 0
    assert capsys.readouterr().out.startswith("quickstart: study, 28 runs; 7 seeds and 3 comp")
    assert main(["validate", "quickstart", "--set", "seeds=2"]) == 0
    assert capsys.readouterr().out.startswith("quickstart: study, 8 runs; 2 seeds and 3 comp")
    assert main(["validate", str(path)]) == 0
    name, kind, identity = capsys.readouterr().out.split()
    assert (name, kind, len(identity)) == (f"{path}:", "run", 16)


def test_validate_prints_json(capsys):
    assert main(["validate", "fewglue", "--json", "--set", "seeds=1"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert (found["recipe"], found["kind"], found["runs"]) == ("fewglue", "study", 21)
    assert len(set(found["identities"])) == 21
    assert found["size"].endswith("no spread is known; 2 seeds can, where all agree")


def test_validate_prints_every_problem_on_a_line_of_its_own(capsys, wrong):
    arguments = ["validate", wrong, "--set", "task.shots=0", "--set", "nonsense"]

    assert main(arguments) == 2
    captured = capsys.readouterr()

    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"error: {wrong}: an override must look like `a.b=value`, but is 'nonsense'.",
        f"error: {wrong}: `task.shots` must be at least 1, but is 0.",
        f"error: {wrong}: `seed` must be at least 0, but is -1.",
        f"error: {wrong}: `trainig` is an unknown key; did you mean `training`?",
    ]


def test_errors_are_json_too_where_asked(capsys, wrong):
    assert main(["validate", wrong, "--json"]) == 2
    captured = capsys.readouterr()

    error = json.loads(captured.out)["error"]
    assert error["kind"] == "RecipeError"
    assert [f"error: {text}" for text in error["problems"]] == captured.err.splitlines()
    assert len(error["problems"]) == 2


def test_a_study_with_twins_is_refused(capsys):
    assert main(["validate", "quickstart", "--set", "variants.again.prompt.method=stable"]) == 2
    assert "(stable) and (again) are the same run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["validate"], "RECIPE"),
        (["validate", "a", "b"], "b"),
        (["validate", "quickstart", "--sett", "a=1"], "--sett"),
        (["validate", "quickstart", "--set"], "--set"),
        (["valdate"], "valdate"),
        (["--jsn"], "--jsn"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, arguments, text):
    assert main(arguments) == 2
    captured = capsys.readouterr()

    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")
    assert text in captured.err


def test_a_wrong_command_line_is_json_too_where_asked(capsys):
    assert main(["valdate", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]

    assert error["kind"] == "UsageError"
    assert "valdate" in error["problems"][0]


def plant(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main_module, "VERBS", {"list": verbs()["list"], "fail": fail})


def test_an_unexpected_error_is_one_line_and_exit_1(capsys, monkeypatch):
    plant(monkeypatch, ZeroDivisionError("by\nzero"))

    assert main(["fail"]) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "error: ZeroDivisionError: by zero (run with --debug for the traceback)\n"
    )


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(capsys, monkeypatch, arguments):
    plant(monkeypatch, ZeroDivisionError())

    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("Traceback (most recent call last):")
    assert captured.err.endswith("error: ZeroDivisionError\n")


def test_debug_shows_the_traceback_of_a_users_mistake_too(capsys, wrong):
    assert main(["validate", wrong, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_leaves_with_130(monkeypatch):
    plant(monkeypatch, KeyboardInterrupt())

    assert main(["fail"]) == 130


def test_an_interrupt_outside_a_verb_leaves_with_130_too(capsys, monkeypatch):
    def interrupt(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_run", interrupt)

    assert main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-W", "error", "-c", ENTRY, "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
        code = process.wait(timeout=600)

    assert errors == b""
    assert code == 1


def test_nothing_given_prints_the_help(capsys):
    assert main([]) == 0
    assert "Usage: softprompts" in capsys.readouterr().out


@pytest.mark.parametrize("verb", verbs())
def test_usage_names_arguments_without_braces(capsys, verb):
    assert main([verb, "--help"]) == 0
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert usage.startswith(f"Usage: softprompts {verb} [OPTIONS]")
    assert not {"{", "}", "[[", "......"} & {*usage, *usage.split()}


@pytest.mark.parametrize(
    ("variables", "said"), [({}, b"\x1b[1;32mit\x1b[0m"), ({"NO_COLOR": "1"}, b"it")]
)
def test_without_colour_nothing_is_bold_either(variables, said):
    ours, theirs = pty.openpty()
    code = "from softprompts.cli.output import say; say('it', 'bold green')"
    known = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")}
    subprocess.run(
        [sys.executable, "-c", code],
        stdout=theirs,
        env={**known, "TERM": "xterm", **variables},
        check=True,
    )
    assert os.read(ours, 99).strip() == said
    os.close(ours)
    os.close(theirs)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("softprompts 0.")


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'pydantic', 'rich', 'yaml'}"
    code = (
        "import sys; from softprompts.cli.main import main; code = main(['--help']); "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    result = run_python(code)

    assert result.returncode == 0, result.stderr
    assert "validate" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_that_nothing_takes_is_said_in_one_line(more):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", ENTRY, "list", *more],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_do_no_harm(tmp_path, closed):
    path = tmp_path / "right.yaml"
    path.write_text(RUN)
    for file, code in ((path, 0), (tmp_path / "none.yaml", 2)):
        done = subprocess.run(
            [
                "sh",
                "-c",
                f'"$0" -c "$1" validate "$2" --json {closed}',
                sys.executable,
                ENTRY,
                file,
            ],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == (code == 2 and "2>" not in closed)
