"""What third parties add to a registry: all that loads, and a warning of what does not."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from softprompts import registry
from softprompts.errors import SoftPromptsWarning, UnknownNameError
from softprompts.registry import Registry

HEAD = "from softprompts.registry import Entry\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function from modules and entry points of `softprompts.thing` to a registry."""

    def make(modules, **points):
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(HEAD + text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        found = EntryPoints(
            EntryPoint(name, value, "softprompts.thing") for name, value in points.items()
        )
        monkeypatch.setattr(registry, "entry_points", lambda: found)
        things = Registry("thing")
        things.register("own", "a:b")
        return things

    monkeypatch.syspath_prepend(str(tmp_path))
    return make


def test_what_others_add_comes_behind(install):
    things = install({"plug_good": "X = Entry('theirs', 'c:d')"}, x="plug_good:X")
    assert things.names() == ("own", "theirs")
    assert "theirs" in things
    assert [entry.target for entry in things] == ["a:b", "c:d"]


def test_what_others_add_is_no_method_by_itself(install):
    text = "X = Entry('theirs', 'c:d', is_method=True)"
    things = install({"plug_bad": text}, x="plug_bad:X")
    with pytest.warns(SoftPromptsWarning, match="is one with `is_method`: only built-in ones may"):
        assert things.names() == ("own",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import plug_absent", r"ModuleNotFoundError: No module named 'plug_absent'\."),
        ("raise ValueError('two\\nlines.')", r"ValueError: two lines\."),
        ("raise KeyError", r"KeyError\."),
        ("raise SystemExit(0)", r"SystemExit: 0\."),
        ("Y = 1", r"AttributeError: module 'plug_bad' has no attribute 'X'\."),
    ],
)
def test_one_that_fails_is_said_and_hides_none(install, text, reason):
    modules = {"plug_bad": text, "plug_good": "X = Entry('theirs', 'c:d')"}
    things = install(modules, wrong="plug_bad:X", last="plug_good:X")
    about = r"entry point 'wrong' of softprompts.thing must load to .*Entry, but plug_bad:X raises "
    with pytest.warns(SoftPromptsWarning, match=f"^{about}{reason} It is left out"):
        assert things.names() == ("own", "theirs")
    with pytest.raises(UnknownNameError, match=r"must be one of own, theirs, .*" + about + reason):
        things.entry("wrong")


def test_one_that_is_no_entry_or_has_a_taken_name_is_left_out(install):
    good = {"plug_good": "X = Entry('theirs', 'c:d'); Y = Entry('own', 'e:f'); Z = 3"}
    things = install(good, x="plug_good:X", z="plug_good:Z")
    with pytest.warns(SoftPromptsWarning, match=r"'z' of softprompts.thing must .* but is 3\. It"):
        assert things.names() == ("own", "theirs")
    things = install(good, x="plug_good:X", y="plug_good:Y")
    with pytest.warns(SoftPromptsWarning, match=r"'own' is taken by a:b\. It is left out"):
        assert things.names() == ("own", "theirs")


def test_threads_that_look_at_once_see_all(install):
    text = "import time; time.sleep(0.2); X = Entry('theirs', 'c:d')"
    things = install({"plug_slow": text}, x="plug_slow:X")
    together = threading.Barrier(3)

    def look(_):
        together.wait()
        return things.names()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(look, range(3))) == [("own", "theirs")] * 3


def test_a_module_may_look_while_it_is_loaded(install, monkeypatch):
    things = install(
        {"plug_looking": "import plug_seen; SEEN = plug_seen.look(); X = Entry('theirs', 'c:d')"},
        x="plug_looking:X",
    )
    seen = type(sys)("plug_seen")
    seen.look = things.names
    monkeypatch.setitem(sys.modules, "plug_seen", seen)
    assert things.names() == ("own", "theirs")
    assert sys.modules["plug_looking"].SEEN == ("own",)


@pytest.mark.parametrize("name", [["own"], {"own": 1}, None, 3])
def test_what_is_no_name_is_in_no_registry(install, name):
    assert name not in install({})
