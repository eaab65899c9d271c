PYTHON ?= python3
BIN := .venv/bin
QUICK := quick_test_distorted
REFERENCES ?= auto

.PHONY: quickstart test

quickstart: .venv/installed
	$(BIN)/python train_with_distortions.py --experiment_name $(QUICK) --train_samples 100 --val_samples 50 \
		--distortions_per_image 3 --epochs 20 --batch_size 64 --references $(REFERENCES) --overwrite
	$(BIN)/python test_with_viz.py --experiment experiments/$(QUICK)
	$(BIN)/python display_viz_english.py --experiment experiments/$(QUICK)

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	touch $@
