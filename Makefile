# One line per target, the same for people and for CI. Everything runs in `.venv`, made on first use.
.PHONY: setup demo test slow thorough check support crash fuzz audit bench clean
BIN := .venv/bin
STAMP := .venv/.installed

$(STAMP): requirements.lock pyproject.toml ; python3.11 -m venv .venv && $(BIN)/pip install -qq --disable-pip-version-check --no-deps $$(grep -o '^torch==[0-9.]*' requirements.lock) && $(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && $(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . && touch $@
setup: $(STAMP) ## install what is missing
demo: $(STAMP) ; $(BIN)/softprompts study quickstart
test: $(STAMP) ; PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 $(COVER)
slow: $(STAMP) ; PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m slow
thorough: $(STAMP) ; OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m thorough
check: $(STAMP) ; $(BIN)/ruff format --check -q src tests benchmarks docs && $(BIN)/ruff check -q src tests benchmarks docs && $(BIN)/mypy && $(BIN)/python .ci/limits.py src && $(BIN)/lint-imports --no-logo --no-cache && $(BIN)/python .ci/audit.py 20 requirements.lock
support: $(STAMP) ; SOFTPROMPTS_WRITE_SUPPORT=1 $(BIN)/pytest -q -m "" tests/contracts/test_support_table.py tests/contracts/test_contracts.py
crash: $(STAMP) ; OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python tests/crash/crash.py --kills 1000 --starved 30 --out docs/results/reliability/crash.json
fuzz: $(STAMP) ; OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/fuzz/fuzz.py --out docs/results/reliability/fuzz.json && $(BIN)/python docs/results/write_reliability.py
audit: $(STAMP) ; $(BIN)/python .ci/audit.py 600 requirements.lock
bench: $(STAMP) ; $(BIN)/python benchmarks/presets.py --out benchmarks/results/presets.json && $(BIN)/python benchmarks/throughput.py --data-dir ../shared/data && $(BIN)/python docs/results/write_throughput.py
clean: ; rm -rf .venv studies
