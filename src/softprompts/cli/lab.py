"""What the lab's verbs need beside what the library needs."""

from __future__ import annotations

LIBRARIES = ("jinja2", "matplotlib", "plotly", "scipy")
"""Those of the extra `lab`, as Python imports them."""


def require_lab() -> None:
    """Check that the lab's libraries are there, before a verb does anything.

    Raises:
        ExtraError: if one is not installed.
    """
    from importlib.util import find_spec

    from softprompts.errors import ExtraError

    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ExtraError(
            f"this command must have {', '.join(LIBRARIES)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: install softprompts with its "
            "extra `lab`."
        )
