# One line per target, the same for people and for CI. Everything runs in `.venv`, made on first use.
.PHONY: setup demo test slow check support bench clean
BIN := .venv/bin
STAMP := .venv/.installed

$(STAMP): requirements.lock pyproject.toml ; python3.11 -m venv .venv && $(BIN)/pip install -qq --disable-pip-version-check --no-deps -r requirements.lock && $(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . && touch $@
setup: $(STAMP) ## install what is missing
demo: $(STAMP) ; $(BIN)/softprompts study quickstart
test: $(STAMP) ; OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 $(COVER)
slow: $(STAMP) ; OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m slow
check: $(STAMP) ; $(BIN)/ruff format --check -q src tests benchmarks docs && $(BIN)/ruff check -q src tests benchmarks docs && $(BIN)/mypy && $(BIN)/python .ci/limits.py src && $(BIN)/lint-imports --no-logo --no-cache
support: $(STAMP) ; SOFTPROMPTS_WRITE_SUPPORT=1 $(BIN)/pytest -q tests/contracts/test_contracts.py
bench: $(STAMP) ; $(BIN)/python benchmarks/presets.py --out benchmarks/results/presets.json && $(BIN)/python benchmarks/throughput.py --data-dir ../shared/data && $(BIN)/python docs/results/write_throughput.py
clean: ; rm -rf .venv studies
