PYTHON ?= python3
BIN := .venv/bin
QUICK := quick_test_distorted
REFERENCES ?= auto

SEEDS ?= 0 1 2

.PHONY: quickstart test results

quickstart: .venv/installed
	$(BIN)/python train_with_distortions.py --experiment_name $(QUICK) --train_samples 100 --val_samples 50 \
		--distortions_per_image 3 --epochs 20 --batch_size 64 --references $(REFERENCES) --overwrite
	$(BIN)/python test_with_viz.py --experiment experiments/$(QUICK)

# The full command over seeds and one table, as in the README: make results REFERENCES=path/to/images
results: .venv/installed
	for seed in $(SEEDS); do \
		$(BIN)/python train_with_distortions.py --experiment_name full_seed$$seed --seed $$seed \
			--references $(REFERENCES) --overwrite && \
		$(BIN)/python test_with_viz.py --experiment experiments/full_seed$$seed --test_samples 1017 || exit 1; \
	done
	$(BIN)/python summarize_runs.py $(SEEDS:%=experiments/full_seed%)

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	touch $@
