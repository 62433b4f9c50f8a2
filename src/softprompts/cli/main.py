"""The command line: verbs, and what becomes of their errors.

A verb is a function in a file of its own that imports nothing heavy before it runs. To add one,
write `cli/<verb>.py` and add a line to `VERBS`; the lab and other packages add theirs by the entry
point group `softprompts.commands`. A verb prints its result and raises its errors; `main` prints
those.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand

from softprompts.cli.evaluate import evaluate
from softprompts.cli.export import export
from softprompts.cli.list import list_components
from softprompts.cli.output import (
    is_printed,
    leave_quietly,
    open_streams,
    print_error,
    problems_of,
    visible,
)
from softprompts.cli.predict import predict
from softprompts.cli.train import train
from softprompts.cli.try_out import try_out
from softprompts.cli.validate import validate
from softprompts.entry_points import load_point, named_points
from softprompts.errors import RegistryError, SoftPromptsError, SoftPromptsWarning, TuningError

VERBS: Mapping[str, Callable[..., None]] = {
    "list": list_components,
    "validate": validate,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "try": try_out,
}
"""The verbs that need no lab."""

GROUP = "softprompts.commands"
"""Entry points that lead to verbs more."""

ADDED = {
    "study": "softprompts.cli.study:study",
    "report": "softprompts.cli.report:report",
    "ensemble": "softprompts.cli.ensemble:ensemble",
    "choices": "softprompts.cli.choices:choices",
    "landscape": "softprompts.cli.landscape:landscape",
    "fit": "softprompts.cli.fit:fit",
}
"""Those of the lab, as `pyproject.toml` has them."""

SUCCESS, FAILURE, MISTAKE, INTERRUPTED = 0, 1, 2, 130


def _print_version(is_asked: bool) -> None:
    if is_asked:
        import importlib.metadata

        print(f"softprompts {importlib.metadata.version('softprompts')}")
        raise typer.Exit


def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; stands anywhere.")
    ] = False,
) -> None:
    """Soft prompts that train stably, on any Hugging Face language model."""


def verbs() -> dict[str, Callable[..., None]]:
    """Return all verbs by name; one of another package that does not load is left out, aloud."""
    points = named_points(GROUP, ADDED)
    for name in sorted(VERBS.keys() & points.keys()):
        raise RegistryError(f"command name must be free, but {name!r} is taken by softprompts.")
    found = dict(VERBS)
    for name, point in points.items():
        try:
            found[name] = load_point(point, "a verb")
        except RegistryError as error:
            if name in ADDED:
                raise
            warnings.warn(f"{error} It is left out.", SoftPromptsWarning, stacklevel=2)
    return found


class _Verb(TyperCommand):
    """A verb whose usage has arguments as other programs do: `RUN_DIR`, not `{RUN_DIR}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [
            piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)
        ]


def build_app() -> typer.Typer:
    """Return the command-line application with every verb."""
    app = typer.Typer(
        name="softprompts",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_global_options)
    for name, verb in verbs().items():
        summary = (verb.__doc__ or "").partition("\n")[0]  # a short help is shown whole
        app.command(name, cls=_Verb, short_help=summary)(verb)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with what follows the program's name; return the exit code.

    That is 0; 2 for the user's mistake; 1 for a failure; 130 after an interrupt.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    end = given.index("--") if "--" in given else len(given)
    is_debug, as_json = "--debug" in given[:end], "--json" in given[:end]
    plain = [text for text in given[:end] if text != "--debug"] + given[end:]
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a letter shows its number
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = _run(plain)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        leave_quietly()
        return FAILURE
    except SystemExit as leaving:  # typer's way out when the reader is gone
        return leaving.code if isinstance(leaving.code, int) else FAILURE
    except Exception as error:
        if is_debug:
            traceback.print_exc()
        if _was_interrupted(error):
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        code = _report(error, is_debug=is_debug, as_json=as_json)
        if not is_printed():
            leave_quietly()
        return code
    if code == INTERRUPTED:  # typer turns the interrupt into its code
        print("interrupted", file=sys.stderr)
    return code


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether an error is what an import made of an interrupt."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of the library in one line, others as Python does."""
    text = f"warning: {visible(str(message))}\n"
    if not issubclass(category, SoftPromptsWarning):
        text = warnings.formatwarning(message, category, filename, lineno, line)
    (sys.stderr if file is None else file).write(text)


def _run(arguments: Sequence[str]) -> int:
    result: Any = build_app()(arguments, prog_name="softprompts", standalone_mode=False)
    return result if isinstance(result, int) else SUCCESS


def _report(error: Exception, *, is_debug: bool, as_json: bool) -> int:
    if isinstance(error, SoftPromptsError):
        print_error(type(error).__name__, problems_of(error), as_json=as_json)
        return FAILURE if isinstance(error, TuningError) else MISTAKE
    if hasattr(error, "format_message"):  # the command line itself is wrong
        line = " ".join(str(error.format_message()).split())
        problems = [f"{line.rstrip('.')}; see softprompts --help."]
        print_error("UsageError", problems, as_json=as_json)
        return MISTAKE
    problems = problems_of(error)
    if not is_debug:
        problems[-1] += " (run with --debug for the traceback)"
    print_error(type(error).__name__, problems, as_json=as_json)
    return FAILURE


if __name__ == "__main__":
    sys.exit(main())
