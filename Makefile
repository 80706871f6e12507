# All targets set up everything they need on a machine that has Python 3.11, 3.12 or 3.13: `make quickstart`,
# `make check`, `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
Q := quickstart
DATA := --data_dir=$(Q)/data

.PHONY: quickstart check test notebooks docs clean

$(VENV)/installed: setup.py
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"Python must be 3.11, 3.12 or 3.13. Received: {sys.version}")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[dev]'
	touch $@

# Simulate a feed, train two rankers, compare them with the known truth, export, score from a fresh process.
quickstart: $(VENV)/installed
	$(PY) -m pipelines.simulate --output=$(Q)/data --rows=200000 --seed=0
	$(PY) -m dlen_cam2 train --config=quickstart_mmoe $(DATA) --model_dir=$(Q)/mmoe \
	    --train_days=20240101..20240107 --eval_days=20240108,20240108_random
	$(PY) -m dlen_cam2 train --config=quickstart_mmoe_dlen $(DATA) --model_dir=$(Q)/mmoe_dlen \
	    --train_days=20240101..20240107 --eval_days=20240108,20240108_random
	$(PY) -m dlen_cam2 compare_with_truth $(DATA) --model_dirs=$(Q)/mmoe,$(Q)/mmoe_dlen --day=20240108 --output=$(Q)/recovery
	$(PY) -m dlen_cam2 export --model_dir=$(Q)/mmoe_dlen --output=$(Q)/served/mmoe_dlen
	$(PY) -m dlen_cam2 predict --model=$(Q)/served/mmoe_dlen $(DATA) --day=20240108 --rows=5

# What is known soon: before a commit. `make test` is everything.
check: $(VENV)/installed
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -n 2 --dist=loadfile -m "not slow"

test: $(VENV)/installed
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	$(PY) -m pytest -n 2 --dist=loadfile

# Run the scripts of notebooks/ and write their .ipynb with outputs: after a change of a script. `make test` runs them.
notebooks: $(VENV)/installed
	$(PY) -m notebooks.render

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(Q) build site *.egg-info
