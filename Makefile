PYTHON ?= python3
BIN := .venv/bin
QUICK ?= quickstart
REFERENCES ?= auto
SEEDS ?= 0 1 2
# As they were typed, for recipes to take from the environment: "$$REFERENCES" may hold any character.
override PYTHON := $(value PYTHON)
override QUICK := $(value QUICK)
override REFERENCES := $(value REFERENCES)
override SEEDS := $(value SEEDS)
export PYTHON QUICK REFERENCES SEEDS
# In the order of tests/conftest.py: the slowest files first, so that no worker ends long after the other.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help quickstart results tables test test-fast stress lint format

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

quickstart: .venv/installed ## environment, a small training run and its test
	$(BIN)/python train_with_distortions.py --experiment_name="$$QUICK" --train_samples 100 --val_samples 50 \
		--distortions_per_image 3 --epochs 20 --batch_size 64 --references="$$REFERENCES" --overwrite
	$(BIN)/python test_with_viz.py --experiment="experiments/$$QUICK"

results: .venv/installed ## the full command over SEEDS and its table: make results REFERENCES=path/to/images
	for seed in $$SEEDS; do \
		$(BIN)/python train_with_distortions.py --experiment_name "full_seed$$seed" --seed "$$seed" \
			--references="$$REFERENCES" --overwrite && \
		$(BIN)/python test_with_viz.py --experiment "experiments/full_seed$$seed" --test_samples 1017 || exit 1; \
	done
	for seed in $$SEEDS; do set -- "$$@" "experiments/full_seed$$seed"; done; \
		$(BIN)/python summarize_runs.py "$$@" --output results/full_command.json

tables: .venv/installed ## write the tables of docs/ from the files in results/
	$(BIN)/python -m docs.make_tables

test: .venv/installed-dev ## the whole test suite, without the stress tests
	$(PYTEST) -m "not stress"

test-fast: .venv/installed-dev ## the tests that run no whole script, in under two minutes
	$(PYTEST) -m "not slow and not distributed and not stress"

stress: .venv/installed-dev ## odd folders, killed and resumed runs, damaged files
	$(BIN)/python -m tests.stress.folder_zoo
	$(BIN)/python -m tests.stress.kill_and_resume
	$(BIN)/python -m tests.stress.fuzz_images

lint: .venv/installed-dev ## ruff's checks, its format, and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: requirements.txt
	"$$PYTHON" -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	touch $@
