"""A study's report: all that is known, nothing that escapes, nothing from outside."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from browsing import boxes, browse, widths
from study_material import SMALL, finished, make_study, score_of, study_like

import softprompts as sp
from softprompts.errors import RunFolderError, StorageError
from softprompts.lab.reports.landscapes import keep_landscapes, kept_landscapes, study_of
from softprompts.lab.reports.recipe_section import file_name, recipe_text
from softprompts.lab.reports.report import write_report
from softprompts.lab.reports.study_record import read_study
from softprompts.lab.reports.tabular import Column, Table, to_csv, to_latex
from softprompts.recipes.grid import expand
from softprompts.recipes.loading import load_recipe
from softprompts.recipes.study import parse_study

EVILS = ("<script>alert(1)</script>", "a & b", "100% _x_", "=1+1", '"quoted" \\back{}^~', "名前")


class Reader(HTMLParser):
    """Collects tags, text, and what links lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read(path: str | Path) -> Reader:
    reader = Reader()
    reader.feed(Path(path).read_text("utf-8"))
    return reader


def report(tmp_path, content=SMALL, outcome=finished):
    return write_report(make_study(tmp_path / "study", content, outcome))


def hostile():
    """Return a study whose names would break out of HTML, LaTeX and spreadsheets."""
    others = {name: {"prompt.length": 5 + place} for place, name in enumerate(EVILS)}
    return study_like(
        seeds=[3, 1],
        name=EVILS[0],
        description="</p><img src=x onerror=alert(2)>",
        variants={"a": {}, **others},
    )


def rows_of(path: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(Path(path).read_bytes().decode())))


def test_a_report_says_what_the_study_found(tmp_path):
    found = report(tmp_path)
    page = read(found["html"])
    assert found["html"] == str(tmp_path / "study" / "report.html")
    assert (found["state"], found["num_runs"], found["num_finished"]) == ("finished", 10, 10)
    assert found["compared"] == ["residual against plain, on bundled/sentiment; 5 seeds each."]
    for text in (*found["compared"], *found["found"], *found["certainty"]):
        assert text in page.text
    cells = expand(parse_study(SMALL))
    for variant in ("plain", "residual"):
        scores = [score_of(cell) for cell in cells if cell.variant == variant]
        assert f"{100 * math.fsum(scores) / 5:.1f} ± " in page.text
        for seed, score in enumerate(scores):
            assert f"seed {seed}: {100 * score:.1f}" in page.text
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == found["sections"]
    assert sections == [
        "scores", "comparisons", "curves", "landscapes", "cost", "runs", "recipe",
    ]  # fmt: skip
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and "download" not in attrs]
    assert links == [f"#{name}" for name in sections]


def test_a_notebook_shows_the_first_screen(tmp_path):
    folder = make_study(tmp_path / "study", hostile())
    shown = sp.Study(read_study(folder).summary, folder)
    assert repr(shown) == f"Study({EVILS[0]!r}, 14 of 14 runs, {str(folder)!r})"
    assert shown["num_runs"] == len([*expand(parse_study(hostile()))])
    drawn = shown._repr_html_()
    assert re.search(r'class="advice">Take .* \(95 % interval', drawn)
    assert drawn.count("<svg") == 1
    assert "<script" not in drawn
    assert "--ink: #1c1d20" in drawn


def test_every_table_is_beside_the_page_and_in_it(tmp_path):
    found = report(tmp_path)
    folder = tmp_path / "study" / "tables"
    hidden = str(folder / ".report.json")
    assert {str(path) for path in folder.iterdir()} == {*found["tables"], hidden}
    names = {Path(path).name for path in found["tables"]}
    assert names >= {"scores.csv", "scores.tex", "comparisons.csv", "cost.tex", "runs.csv"}
    links = {
        attrs["download"]: attrs["href"]
        for tag, attrs in read(found["html"]).tags
        if tag == "a" and "download" in attrs
    }
    assert names <= links.keys()
    for name in names:
        assert base64.b64decode(links[name].split(",")[1]) == (folder / name).read_bytes()


def test_csv_has_the_numbers_in_full(tmp_path):
    found = report(tmp_path)
    heads, *rows = rows_of(found["html"].replace("report.html", "tables/runs.csv"))
    runs = [dict(zip(heads, row, strict=True)) for row in rows]
    cells = expand(parse_study(SMALL))
    assert [run["identity"] for run in runs] == [cell.identity for cell in cells]
    assert [float(run["score"]) for run in runs] == [score_of(cell) for cell in cells]
    heads, *rows = rows_of(found["html"].replace("report.html", "tables/comparisons.csv"))
    one = dict(zip(heads, rows[0], strict=True))
    (known,) = read_study(tmp_path / "study").summary["comparisons"]
    assert float(one["difference"]) == known["difference"]
    assert [float(one["interval_low"]), float(one["interval_high"])] == list(known["interval"])


def table(*rows):
    columns = (
        Column("name", "the name"),
        Column("score", "mean ± std", "score", ("mean", "std")),
        Column("count", "n", "count"),
        Column("hidden", "hidden", "number", is_shown=False),
    )
    return Table("t", "A 100% table\n\\input{x}", columns, rows)


def test_csv_reads_back_equal_and_starts_no_formula():
    names = ["a,b", 'say "x"', "two\nlines", *EVILS, "+1", "-1", "@x", "'x", "\tx", ""]
    rows = [
        {"name": name, "score": (0.1 + 0.2, None), "count": 3, "hidden": -1e-9} for name in names
    ]
    heads, *found = list(csv.reader(io.StringIO(to_csv(table(*rows)))))
    assert heads == ["name", "mean", "std", "count", "hidden"]
    for name, row in zip(names, found, strict=True):
        text, *numbers = row
        assert text[:1] not in {"=", "+", "-", "@", "\t", "\r"}
        risky = ("=", "+", "-", "@", "\t", "\r", "'")
        assert (text[1:] if text.startswith("'") else text) == name
        assert text.startswith("'") == name.startswith(risky)
        assert numbers == [repr(0.1 + 0.2), "", "3", "-1e-09"]


def test_latex_has_no_letter_that_it_would_read(tmp_path):
    rows = [{"name": name, "score": (0.5, 0.01), "count": 1234} for name in (*EVILS, "[x", "*x")]
    lines = to_latex(table(*rows)).splitlines()
    assert lines[0] == r"% A 100% table \input{x}"
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(rows)
    for line in body:
        bare = re.sub(r"\\[&%$#_{}]", "", line)
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 2
        assert not re.search(r"[%#_<>|~^\"]", bare.replace(r"\\", ""))
        assert bare.count("{") == bare.count("}")
        assert bare.isascii()
        assert line[0] not in "[*"
    assert body[0].startswith(r"\textless{}script\textgreater{}alert(1)")
    assert body[2].startswith(r"100\% \_x\_ & 50.0 $\pm$ 1.0 & 1,234")
    assert r"\texttt{U+540D}" in body[5]
    assert "hidden" not in lines[4]


def test_every_table_compiles(tmp_path):
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("pdflatex is absent")
    content = hostile()
    content["variants"]["é ß ð “q” [z] `w` a|b ~ ^ #1 {x} $y$ \\cmd"] = {"prompt.length": 40}
    content["variants"]["[bracket"] = {"prompt.length": 41}
    found = report(tmp_path, content)
    tables = [Path(path).read_text("utf-8") for path in found["tables"] if path.endswith(".tex")]
    head = r"\documentclass{article}\usepackage{booktabs,textcomp}\begin{document}"
    text = "\n\n".join([head, *tables, r"\end{document}"])
    (tmp_path / "all.tex").write_text(text, "utf-8")
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_nothing_from_data_becomes_markup(tmp_path):
    def outcome(cell):
        if cell.variant == EVILS[1]:
            return f"SomeError: {EVILS[0]}"
        words = EVILS[0] if cell.variant == EVILS[0] else 0.5
        diverged = {"status": "diverged", "divergence": {"loss": EVILS[0]}}
        return diverged if words != 0.5 and cell.config.seed == 1 else {"metric": EVILS[0]}

    study = make_study(tmp_path / "study", hostile(), outcome)
    run = next(path for path in (study / "runs").iterdir())
    (run / "examples.txt").write_text(
        f"step 1, {EVILS[0]}\n  before: a [{EVILS[0]}]\n  after:  b [[MASK]]\n\n"
    )
    found = write_report(study)
    page = read(found["html"])
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert not [attrs for _, attrs in page.tags if any(key.startswith("on") for key in attrs)]
    for text in (*EVILS, "</p><img src=x onerror=alert(2)>", "SomeError"):
        assert " ".join(text.split()) in page.text
    assert "[MASK]" in page.texts
    for path in found["tables"]:
        assert Path(path).parent == study / "tables"
        if path.endswith(".csv"):
            for row in rows_of(path):
                bad = [c for c in row if c[:1] in "=+-@" and c and not _is_number(c)]
                assert bad == []
    assert file_name(EVILS[0]) == "script-alert-1-script"


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_a_page_asks_for_nothing_from_outside(tmp_path):
    found = report(tmp_path)
    text = Path(found["html"]).read_text("utf-8")
    for _, attrs in read(found["html"]).tags:
        for key in ("src", "href", "action", "data", "srcset", "xlink:href"):
            assert (attrs.get(key) or "#").startswith(("#", "data:"))
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    names = re.findall(r' id="([^"]*)"', text)
    assert len(names) == len({*names}) > 20
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    looks = re.search("<style>(.*?)</style>", text, re.DOTALL)
    assert looks
    digest = base64.b64encode(hashlib.sha256(looks[1].encode()).digest()).decode()
    assert policy[1] == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'sha256-{digest}'; script-src 'none'"
    )
    assert not re.search(r"<[^>]* style=", text)  # no attribute may have a style of its own


def test_unfinished_failed_and_diverged_runs_are_marked(tmp_path):
    def outcome(cell):
        seed = cell.config.seed
        if cell.variant == "plain":
            return {} if seed < 2 else None
        if seed == 4:
            return "MemoryShortageError: memory does not hold 16 rows."
        return {"status": "diverged", "divergence": {"step": 7, "loss": "nan"}} if seed == 3 else {}

    found = report(tmp_path, outcome=outcome)
    page = read(found["html"])
    assert found["state"] == "unfinished: 6 of 10 runs"
    assert found["compared"][1] == "4 of 10 runs are not finished: what follows is of the others."
    assert "2 of 5 seeds" in page.text
    assert "3 of 5 seeds" in page.text
    assert "Runs that failed or diverged" in page.text
    assert "MemoryShortageError: memory does not hold 16 rows." in page.text
    assert "step 7, loss nan" in page.text
    assert "Runs without a score are in no mean: 1 diverged, 1 failed." in found["certainty"]
    assert [line["num_seeds"] for line in found["scores"]] == [5, 5]
    assert [len(line["seeds"]) for line in found["scores"]] == [2, 3]


def test_a_study_without_results_has_a_report(tmp_path):
    found = report(tmp_path, outcome=lambda cell: None)
    page = read(found["html"])
    assert found["compared"][1] == "None of 10 runs is finished."
    assert "Nothing yet: no run has a score." in page.text
    assert page.text.count("no score: 5 not run yet") == 2
    assert found["sections"] == ["scores", "comparisons", "runs", "recipe"]


def test_one_seed_tells_no_spread(tmp_path):
    found = report(tmp_path, study_like(seeds=1))
    (said,) = found["certainty"]
    assert said == "Each score is of one seed: no spread can be told, and nothing be concluded."
    page = read(found["html"])
    assert said in page.text
    assert "±" not in page.text.split("Learning curves")[0].replace("mean ± std", "")


def test_one_variant_needs_no_comparison(tmp_path):
    found = report(tmp_path, study_like(variants={"only": {}}))
    assert "comparisons" not in found["sections"]
    assert found["compared"] == ["One variant, only, on bundled/sentiment; 5 seeds each."]


def test_claims_are_those_of_the_comparisons(tmp_path):
    def outcome(cell):
        base = 0.8 if cell.variant == "residual" else 0.6
        return {"score": base + 0.002 * cell.config.seed ** (1 + (cell.variant == "residual"))}

    found = report(tmp_path, study_like(seeds=10), outcome)
    (one,) = read_study(tmp_path / "study").summary["comparisons"]
    assert one["p_adjusted"] < 0.05
    assert found["found"][0].startswith(
        f"Shown to score higher than plain on bundled/sentiment: residual "
        f"(+{100 * one['difference']:.1f} points, 95 % +"
    )


GRID = {"task.name": ["bundled/sentiment", "bundled/entailment"], "prompt.length": [2, 5, 20]}


def test_tasks_and_fields_of_a_grid_are_facets_and_columns(tmp_path):
    found = report(tmp_path, study_like(grid=GRID))
    record = read_study(tmp_path / "study")
    facets = record.facets()
    assert [facet.title for facet in facets][:2] == [
        "bundled/sentiment, plain", "bundled/entailment, plain",
    ]  # fmt: skip
    assert [entry.label for entry in facets[0].entries] == [
        "prompt.length 2", "prompt.length 5", "prompt.length 20",
    ]  # fmt: skip
    heads, *rows = rows_of(str(tmp_path / "study" / "tables" / "scores.csv"))
    assert heads[:3] == ["task", "variant", "field prompt.length"]
    assert len(rows) == 12
    assert {row[2] for row in rows} == {"2", "5", "20"}
    averages = tmp_path / "study" / "tables" / "averages.csv"
    assert len(rows_of(str(averages))) == 1 + 6
    page = read(found["html"])
    assert "Means over tasks" in page.text
    assert "robustness" in found["sections"]
    curves = [c for c in record.summary["robustness"]["curves"] if c["rows"] == "reported"]
    ids = {attrs.get("id") for tag, attrs in page.tags if tag == "g"}
    assert sum(f"sweep-{n}-figure_1" in ids for n in range(9)) == len(curves) == 4
    first = curves[0]
    assert f"2: {100 * first['means'][0]:.1f} (" in page.text


def test_many_variants_make_facets_by_point(tmp_path):
    variants = {f"v{n}": {"training.learning_rate": 0.01 * n} for n in range(1, 5)}
    make_study(tmp_path / "study", study_like(variants=variants, grid={"prompt.length": [2, 5]}))
    facets = read_study(tmp_path / "study").facets()
    assert [f.title for f in facets] == [
        "bundled/sentiment, prompt.length 2", "bundled/sentiment, prompt.length 5",
    ]  # fmt: skip
    assert [e.label for e in facets[1].entries] == ["v1", "v2", "v3", "v4"]


def test_tasks_of_a_mixture_have_rows_of_their_own(tmp_path):
    tasks = {"mood": {"name": "bundled/sentiment"}, "logic": {"name": "bundled/entailment"}}
    base = {key: value for key, value in SMALL["base"].items() if key != "task"}
    about = {"majority": 0.5, "metric": "accuracy", "num_items": 100, "split": "validation"}

    def outcome(cell):
        scores = {"mood": 0.9, "logic": 0.3 + 0.01 * cell.config.seed}
        own = {n: {"score": s, "last_score": s, **about} for n, s in scores.items()}
        return {"score": sum(scores.values()) / 2, "tasks": own}

    found = report(tmp_path, study_like(base={**base, "mixture": {"tasks": tasks}}), outcome)
    record = read_study(tmp_path / "study")
    (whole,) = record.tasks
    assert [facet.title for facet in record.facets()] == [
        whole, f"mood, within {whole}", f"logic, within {whole}",
    ]  # fmt: skip
    heads, *rows = rows_of(str(tmp_path / "study" / "tables" / "scores.csv"))
    means = {row[0]: float(row[heads.index("mean")]) for row in rows}
    assert means == pytest.approx(
        {whole: 0.61, f"mood (within {whole})": 0.9, f"logic (within {whole})": 0.32}
    )
    assert len(found["scores"]) == 2
    assert len(rows_of(str(tmp_path / "study" / "tables" / "runs.csv"))) == 1 + 10


def test_choices_are_averaged_over_seeds(tmp_path):
    def outcome(cell):
        counts = [10, 0, 0, 0, 0] if cell.config.seed == 0 else [0, 0, 10, 0, 0]
        return {"log": {"position": {"counts": counts, "entropy": 0.5}}}

    variants = {"dynamic": {"prompt.method": "adap-ins-pos"}}
    found = report(tmp_path, study_like(variants=variants, seeds=2), outcome)
    assert "choices" in found["sections"]
    page = read(found["html"])
    assert "0: 50 % (100, 0)" in page.text
    assert "2: 50 % (0, 100)" in page.text


def test_the_recipe_makes_the_same_runs(tmp_path):
    make_study(tmp_path / "study", hostile())
    record = read_study(tmp_path / "study")
    again = parse_study(yaml.safe_load(recipe_text(record)))
    assert [c.identity for c in expand(again)] == [c.identity for c in expand(record.study)]
    text = read(write_report(tmp_path / "study")["html"]).text
    assert "softprompts study script-alert-1-script.yaml --out studies/script-alert-1" in text


def test_a_shipped_recipe_is_named(tmp_path):
    shipped = load_recipe("quickstart").model_dump(mode="json")
    make_study(tmp_path / "study", shipped)
    text = read(write_report(tmp_path / "study")["html"]).text
    assert "softprompts study quickstart --out studies/quickstart" in text
    make_study(tmp_path / "other", {**shipped, "seeds": 2})
    text = read(write_report(tmp_path / "other")["html"]).text
    assert "softprompts study quickstart.yaml --out studies/quickstart" in text


def landscapes(identity):
    plane = {
        "space": "input", "directions": "gradient", "radius": 0.1, "loss": 0.5, "slope": 1.0,
        "axis": [-0.1, 0.0, 0.1], "losses": [[0.6, 0.5, 0.6]] * 3, "line_axis": [-0.1, 0.0, 0.1],
        "lines": {"first": [0.6, 0.5, 0.6], "second": [0.6, 0.5, 0.7]},
    }  # fmt: skip
    run = {
        "folder": "/secret/place", "identity": identity, "method": "residual", "task": "cb",
        "seed": 0, "num_examples": 16, "spaces": {"input": plane}, "left_out": {},
    }  # fmt: skip
    grid = {"spaces": ["input"], "directions": "gradient"}
    return {"sample": {"split": "train"}, "grid": grid, "runs": [run], "paths": []}


def test_landscapes_and_sharpness_are_shown_where_they_are_kept(tmp_path):
    study = make_study(tmp_path / "study", SMALL)
    before = write_report(study)
    text = read(before["html"]).text
    runs = [study / "runs" / cell.identity for cell in expand(parse_study(SMALL))]
    assert f"softprompts landscape {runs[0]} {runs[5]}" in text
    assert f"softprompts landscape {study} --sharpness-only --quick" in text
    assert Path(before["html"]).stat().st_size < 300_000

    assert study_of(runs) == study
    assert study_of([runs[0], tmp_path]) is None
    assert study_of([tmp_path / "runs" / "x"]) is None
    keep_landscapes(study, landscapes(runs[0].name))
    kept = keep_landscapes(study, landscapes(runs[0].name))
    assert [found["runs"][0]["identity"] for found in kept_landscapes(study)] == [runs[0].name]
    assert "secret" not in kept.read_text()
    folder = study / "analysis" / "sharpness"
    folder.mkdir()
    radii = [{"radius": 0.1, "worst": 1.25, "noise": 0.5}]
    measured = {"loss": 0.75, "input": {"radii": radii}, "prompt": None, "curvature": None}
    about = {"num_examples": 16, "sample": {"split": "train"}}
    for seed, run in enumerate(runs[:2]):
        other = {**measured, **about, "loss": 0.75 + seed}
        (folder / f"{run.name}.json").write_text(json.dumps({"key": other}))
    after = write_report(study)
    page = read(after["html"])
    assert "softprompts landscape /" not in page.text
    assert "Loss around trained runs: cb" in page.text
    label = next(entry.label for entry in read_study(study).whole_entries)
    assert f"{label}, seed 0" in page.text  # what the study calls it, not `residual`
    ids = {attrs.get("id") for tag, attrs in page.tags}
    assert {"landscape-0-input-0", "landscape-0-input-x-figure_1"} <= ids
    assert Path(after["html"]).stat().st_size > 3_000_000
    heads, row = rows_of(str(study / "tables" / "sharpness.csv"))
    found = dict(zip(heads, row, strict=True))
    assert (found["num_runs"], found["loss"], found["input_worst_0.1"]) == ("2", "1.25", "1.25")


def test_the_same_study_gives_the_same_bytes(tmp_path):
    found = report(tmp_path)
    first = Path(found["html"]).read_bytes()
    assert write_report(tmp_path / "study") == found
    assert Path(found["html"]).read_bytes() == first


def test_half_written_records_are_read_as_far_as_they_go(tmp_path):
    study = make_study(tmp_path / "study", SMALL)
    run = next((study / "runs").iterdir())
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "lo')
    write_report(study)
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(StorageError, match=r"metrics\.jsonl:23 must be JSON, but is not"):
        write_report(study)


def test_folders_of_other_runs_are_counted(tmp_path):
    study = make_study(tmp_path / "study", SMALL)
    (study / "runs" / "0123456789abcdef").mkdir()
    assert (
        "1 other folders in runs/ are of no run of this study"
        in read(write_report(study)["html"]).text
    )


@pytest.mark.parametrize(
    ("prepare", "error", "match"),
    [
        (lambda p: None, StorageError, "study could not be read: no such folder"),
        (lambda p: p.mkdir(), RunFolderError, "with study.json, but is empty"),
        (
            lambda p: (p.mkdir(), (p / "notes.txt").write_text("")),
            RunFolderError,
            "with study.json, but holds notes.txt",
        ),
        (
            lambda p: (p.mkdir(), (p / "config.json").write_text("{}")),
            RunFolderError,
            "must be a study's folder, but is a run's",
        ),
        (
            lambda p: (p.mkdir(), (p / "study.json").write_text("{")),
            StorageError,
            "study.json must be JSON, but is not",
        ),
    ],
)
def test_what_is_no_study_is_refused(tmp_path, prepare, error, match):
    prepare(tmp_path / "study")
    with pytest.raises(error, match=match):
        write_report(tmp_path / "study")


def test_a_report_needs_no_torch(tmp_path):
    study = make_study(tmp_path / "study", study_like(grid={"prompt.length": [2, 5, 10]}))
    code = (
        "import sys\n"
        "from softprompts.cli.main import main\n"
        f"code = main(['report', {str(study)!r}])\n"
        "heavy = {'torch', 'transformers', 'matplotlib.pyplot', 'plotly'} & {*sys.modules}\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"report: {study / 'report.html'}"


def test_an_interval_that_leaves_the_axis_is_marked_and_said(tmp_path):
    def outcome(cell):
        return {"score": 0.5 + (0.3 if cell.variant == "plain" else 0.01) * cell.config.seed}

    found = report(tmp_path, study_like(seeds=2), outcome)
    page = Path(found["html"]).read_text("utf-8")
    titles = re.findall(r"<title>([^<]*95 % interval[^<]*)</title>", page)
    said = [one for one in titles if "seed 0: 50.0, seed 1: 80.0" in one]
    assert said
    assert all(one.endswith(", beyond the axis") for one in said)
    label = re.search(r'aria-label="bundled/sentiment. plain: mean ([^"]*)"', page)
    assert label
    assert "beyond the axis" in label[1]
    calm = report(tmp_path / "calm", study_like(seeds=5), lambda cell: {"score": 0.7})
    text = Path(calm["html"]).read_text("utf-8")
    titles = re.findall(r"<title>([^<]*95 % interval[^<]*)</title>", text)
    assert titles
    assert not any("beyond the axis" in one for one in titles)


WIDE = "a-variant-whose-name-goes-on-and-on-without-any-space-to-break-it-" * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", [WIDE, "w" * 72])
def test_a_page_never_scrolls_sideways_on_a_phone(tmp_path, name):
    variants = {name: {}, EVILS[0]: {"prompt.method": "residual"}}
    study = make_study(tmp_path / "study", study_like(variants=variants, grid=GRID))
    keep_landscapes(study, landscapes("0123"))
    found = write_report(study)
    text = Path(found["html"]).read_text("utf-8")
    assert widths(tmp_path / "probe.html", text) == (400, 400)
    broken = text.replace("</body>", "<div style='width: 500px; height: 9px'></div></body>")
    assert widths(tmp_path / "probe.html", broken)[0] >= 500


@pytest.mark.slow
def test_the_first_screen_answers(tmp_path):
    variants = {f"v{number}": {"prompt.length": 5 + number} for number in range(7)}
    found = report(tmp_path, study_like(variants={"plain": {}, **variants}))
    text, probe = Path(found["html"]).read_text("utf-8"), tmp_path / "probe.html"
    wanted = (".advice", "figure svg", "pre")
    advice, chart, commands = boxes(probe, text, (1280, 800), *wanted)
    assert 0 < advice[0] < advice[1] < chart[0] < chart[1] < commands[0] < commands[1] < 800
    advice, chart, _ = boxes(probe, text, (400, 800), *wanted)
    assert 0 < advice[0] < advice[1] < chart[0] < 400
    assert text.index("95 % interval") < text.index("<svg")


def test_majority_beyond_the_axis_is_told(tmp_path):
    found = report(tmp_path, outcome=lambda cell: {"majority": 0.1})
    assert "Majority class beyond the axis: bundled/sentiment 10.0." in read(found["html"]).text
    assert "Dashed: the majority class." not in read(found["html"]).text
    near = write_report(make_study(tmp_path / "near", SMALL, lambda cell: {"majority": 0.58}))
    assert "Majority class beyond the axis" not in read(near["html"]).text
    assert "Dashed: the majority class." in read(near["html"]).text


def test_a_note_stands_where_interval_and_test_seem_to_disagree(tmp_path):
    def outcome(cell):
        return {"score": 0.6 + (cell.variant == "plain") * (0.2 + 0.01 * cell.config.seed)}

    for count, disagree in ((5, True), (10, False)):  # five seeds give no p below 0.0625
        found = report(tmp_path / str(count), study_like(seeds=count), outcome)
        text = read(found["html"]).text
        assert ("seem to disagree, the claim follows p" in text) is disagree
        assert "corrected p 0.0" in text


def test_equal_scores_have_no_interval(tmp_path):
    found = report(tmp_path, outcome=lambda cell: {"score": 0.7})
    text = read(found["html"]).text
    assert text.count("equal in every seed") >= 3  # figure, sentence, table
    assert "+0.0 to" not in text
    page = Path(found["html"]).read_text("utf-8")
    commands = re.search(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert commands
    assert re.sub(r"</?span>", "", commands[1]).split("\n") == found["advice"][1:]


def test_a_page_prints(tmp_path):
    found = report(tmp_path, study_like(grid=GRID))
    browse(Path(found["html"]), f"--print-to-pdf={tmp_path / 'page.pdf'}")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000
