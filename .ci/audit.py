"""Ask an index for known weaknesses of pinned packages, where one answers.

    python .ci/audit.py SECONDS LOCK [OPTION OF PIP-AUDIT ...]

A weakness ends with exit code 1 and is named. Where no answer comes, or none in time, or only of
some packages, a line says so, and the code is 0: a machine without a network must pass, too. One
package is asked of first, so that an index without such knowledge is asked once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = "-m pip_audit --disable-pip --require-hashes --progress-spinner off --format json -r"
UNREACHED = ("requests.exceptions.", "ServiceError", "Could not connect", "not redirecting")


def main(seconds: float, lock: Path, options: list[str]) -> int:
    """Audit, say what came of it, and return the exit code."""
    stop, found = time.monotonic() + seconds, []
    first = re.split(r"\n(?=[^\s#])", f"\n{lock.read_text()}")[1]
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as one:
        one.write(f"{first}\n")
        one.flush()
        for path in (one.name, str(lock)):
            command = [sys.executable, *COMMAND.split(), path, *options]
            try:
                left = stop - time.monotonic()
                done = subprocess.run(command, capture_output=True, text=True, timeout=left)
                found = json.loads(done.stdout)["dependencies"]
            except subprocess.TimeoutExpired:
                print(f"not audited: no whole answer in {seconds:g} s")
                return 0
            except ValueError:
                is_unreached = any(word in done.stderr for word in UNREACHED)
                print("not audited:" if is_unreached else "pip-audit fails:", end=" ")
                print((done.stderr.strip().split("\n"))[-1][:200])
                return 0 if is_unreached else 1
            if all("skip_reason" in package for package in found):
                print("not audited: the index knows nothing of weaknesses")
                return 0
    return report(found)


def report(found: list[dict[str, Any]]) -> int:
    """Say what is weak or unknown, and return the exit code."""
    weak = [(package, what) for package in found for what in package.get("vulns", ())]
    for package, what in weak:
        mended = ", ".join(what["fix_versions"]) or "none"
        print(f"{package['name']} {package['version']}: {what['id']}, mended in {mended}")
    unknown = [package["name"] for package in found if "skip_reason" in package]
    if unknown:
        print(f"not audited, since the index does not know them: {', '.join(unknown)}")
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
