# Two commands are enough: make demo, make test. Everything lives in .venv; nothing outside it is touched.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
BUILD  := --build-constraint constraints.txt

.PHONY: demo test check docs dist-check lowest format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.light ## compress a real network that ships with the project, before and after
	$(BIN)/python docs/examples/digits/demo.py

test: $(VENV)/.dev ## all tests, the real networks too where they are beside the project
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.dev ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev ## write the generated reference pages, and the site in build/site
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -d build/doctrees -b html docs build/site
	@echo "the documentation is in build/site/index.html"

dist-check: $(VENV)/.dev ## build what would be uploaded, and try the wheel in empty environments: PYTHONS="python3.11 python3.14"
	$(BIN)/python tests/extras/dist_check.py $(PYTHONS)

lowest: $(VENV)/.dev ## the light extras at the lowest versions that pyproject.toml allows; EXTRAS=heavy: the others
	$(BIN)/python tests/extras/lowest.py $(EXTRAS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A stamp is written last, so an install that was cut off starts again.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "LEO needs Python 3.11 or newer; try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	@touch $@

$(VENV)/.light: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) $(BUILD) --editable ".[highs,onnx,report]"
	@touch $@

$(VENV)/.dev: $(VENV)/.light
	$(PIP) --group test --group check --group docs --group release
	@touch $@
