# What developers run. `scripts/test` installs what is needed; these use its environment.

PY := .venv/bin/python
SOURCES := agentd tests bench docs/examples packaging/man-pages
# The release that `make deb` builds for: the root of one, or this machine's own; and where the package goes.
ROOT := /
OUT := dist

.PHONY: check format lint types fresh test stubs docs deb

check: lint types fresh

lint:
	$(PY) -m ruff check $(SOURCES)
	$(PY) -m ruff format --check $(SOURCES)

types:
	$(PY) -m mypy --strict agentd

# Generated files are committed; this fails when one is stale.
fresh:
	scripts/stubs --check
	$(PY) scripts/cli-reference --check
	@if command -v npx >/dev/null 2>&1; then npx --yes @bufbuild/buf@1 lint; else echo "buf lint skipped: npx is missing"; fi

format:
	$(PY) -m ruff format $(SOURCES)
	$(PY) -m ruff check --fix $(SOURCES)

stubs:
	scripts/stubs

docs:
	$(PY) scripts/cli-reference

test:
	scripts/test

# docs/packaging.md tells more.
deb:
	packaging/build-deb $(ROOT) $(OUT)
