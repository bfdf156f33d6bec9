# Two targets for a fresh machine with Python (>= 3.11) and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

# A campaign of faults that can be repeated: `make chaos SEED=7 MINUTES=60`, `make chaos CHAOS="--only run watch"`.
SEED ?= 0
MINUTES ?= 10

.PHONY: demo check test chaos lint scan bench doctor gpu-check format leaderboard study-site clean

# `make INSTALL=--cpu demo` leaves a GPU alone.
$(READY): pyproject.toml scripts/install.py
	$(PYTHON) scripts/install.py $(VENV) $(INSTALL)
	@touch $@

demo: $(READY)  ## evaluate SmolLM2-135M-Instruct on the built-in mini bundle
	$(BIN)/darumeru demo

# Processes that test at once; each computes with one thread.
WORKERS ?= 2

check: lint  ## before every commit: the linters and the tests that need no model
	$(BIN)/python -m pytest tests/unit -n $(WORKERS) --dist worksteal

test: $(READY)  ## all tests: tiny models, real models, engines, a browser
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder --durations 20

chaos: $(READY)  ## the commands killed, stopped, on full disks, on damaged files; a table, and chaos.json with every trial
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) --output chaos.json $(CHAOS)

lint: $(READY)  ## what CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Long random strings are left out: fingerprints are such.
scan: $(READY)  ## whether a key or password is in a file of git
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --disable-plugin Base64HighEntropyString \
		--disable-plugin HexHighEntropyString --disable-plugin IPPublicDetector

bench: $(READY)  ## our engines beside stock lm-eval on this machine (half an hour on two cores, which nothing else may use)
	$(BIN)/python benchmarks/engines.py --output benchmarks/results/engines.json

doctor: $(READY)  ## versions, devices and engines that are here, what works, and what to do
	$(BIN)/darumeru doctor

gpu-check: $(READY)  ## everything that only a GPU shows, as far as this machine allows; a table, and benchmarks/results/gpu-*.json
	$(BIN)/python -m benchmarks.gpu_check $(GPU_CHECK)

leaderboard: $(READY)  ## leaderboards/site from leaderboards/runs and the published rows
	$(BIN)/darumeru leaderboard leaderboards/runs --about leaderboards/models.yaml --output leaderboards/site
	cp leaderboards/site/table.md leaderboards/site/table.csv leaderboards/

study-site: $(READY)  ## the pages of leaderboards/smollm2-pair-ru: its leaderboard with every sample, its report
	$(BIN)/python scripts/study_site.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist build
