# Two commands: make book, make test. Each target is a line or two over the real tool.
ENV ?= .venv
BIN := $(ENV)/bin
PY := $(BIN)/python
export OMP_NUM_THREADS := 1
export TQDM_DISABLE := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
SHAPES := --jaxtyping-packages=dmlib,beartype.beartype
COUNTED := -p tools.counted
NBVAL := -p tools.capture --nbval-lax --nbval-current-env --nbval-cell-timeout 300 --nbval-sanitize-with tests/nbval_sanitize.cfg
CHAPTERS = $$($(PY) -m tools.execute --list)

.PHONY: book test live clean env lint unit house notebooks pages seen bench bench-pages chapter check

book: env  ## execute what changed and build the pages
	@$(PY) -m tools.execute
	@$(PY) -m tools.pages

test: env  ## everything: style, units with shape checking, nbval, pages in a browser
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory house
	@$(MAKE) --no-print-directory notebooks
	@$(MAKE) --no-print-directory pages
	@$(MAKE) --no-print-directory seen

chapter: env  ## start a chapter from the template: make chapter NAME=14-continuous-time
	@$(PY) -m tools.chapter new "$(NAME)"

check: env  ## run and record one chapter, and name what is against the rules: make check CHAPTER=09
	@$(PY) -m tools.chapter check "$(CHAPTER)"

live: book  ## serve the book and rebuild it on change; PORT=8001 for another port than 8000
	@$(PY) -m tools.live $(PORT)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

unit: env
	$(PY) -m pytest tests -m "not built and not house and not apart" $(COUNTED) -p no:nbval -n 2 --dist worksteal $(SHAPES)

house: env  ## the tests of CI itself, on a book with one chapter, and those of processes that are killed
	$(PY) -m pytest tests -m "house or apart" $(COUNTED) -n 2 $(SHAPES)

notebooks: env
	DMLIB_STATIC=1 $(PY) -m pytest $(NBVAL) -n 2 --dist loadfile $(CHAPTERS)

pages: env
	$(PY) -m tools.pages

seen: env
	$(PY) -m pytest tests -m built $(COUNTED) -n 2

mutants: env  ## seed errors in every formula and see which the checks catch (some hours)
	$(PY) -m tools.mutants

bench:  ## measure speed, quality and memory beside other implementations (about an hour); DEVICE=cuda for a GPU
	@$(MAKE) --no-print-directory env ENV=.venv-bench
	.venv-bench/bin/python -m pip install --quiet --no-deps -r benchmarks/requirements.txt
	.venv-bench/bin/python -m benchmarks --device $(or $(DEVICE),cpu)

bench-pages: env  ## measure how soon the pages open on a slow phone (ten minutes)
	@$(PY) -m benchmarks.pages

clean:  ## remove what was made
	rm -rf _build .venv .venv-bench *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

env: $(ENV)/.complete
$(ENV)/.complete: requirements.txt pyproject.toml tools/environment.sh
	@ENV="$(ENV)" PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" bash tools/environment.sh
