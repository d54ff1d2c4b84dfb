# Every target but `clean` and `lock` makes .venv first, from requirements.lock (tools/venv.sh).
PYTHON ?=
EXPERIMENT ?= sample
RUN ?=
ARGS ?=

pipeline = $(if $(filter-out sample,$(EXPERIMENT)),experiments/$(EXPERIMENT)/dvc.yaml,dvc.yaml)
experiments = sample $(patsubst experiments/%/params.yaml,%,$(wildcard experiments/*/params.yaml))

# JupyterLab asks nobody outside for news or newer versions, and not whether it may.
quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}

# Named by its path: a recipe that needs no shell is run by make itself, which in macOS's make 3.81 looks for `python` in
# the PATH that it was started with.
python := '$(subst ','\'',$(CURDIR))/.venv/bin/python'

# What the user's shell has set must not reach the stages: their `python` is the one of .venv, and only that.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export PYTHON
export PYTHONNOUSERSITE := 1
export PIP_USER := 0
export PIP_NO_INPUT := 1
export JUPYTER_PREFER_ENV_PATH := 1
unexport PYTHONPATH PYTHONHOME

.PHONY: help repro study tour test bench faults lab lint lock clean checked .venv
.NOTPARALLEL:

help:
	@echo 'make repro                    run the experiment sample and draw its report'
	@echo 'make repro EXPERIMENT=name    the same for experiments/name'
	@echo 'make repro RUN=mine-0         one run of it alone (with what it needs), and the report of the results that are there'
	@echo 'make study                    the verdicts over all experiments: reports/README.md, and what README.md says of them'
	@echo 'make tour                     the tour through the models as a page to read: reports/tour/README.md'
	@echo 'make test                     run the tests; one file: make test ARGS=tests/test_setup.py'
	@echo 'make faults                   break things on purpose, count what is survived (25 minutes): reports/faults/README.md'
	@echo 'make bench                    measure speed, redraw reports/benchmarks/ (half an hour); one part: make bench ARGS=step'
	@echo 'make lab                      open JupyterLab'
	@echo 'make lint                     check style; mend it: make lint ARGS=--fix'
	@echo 'make lock                     write requirements.lock and environment.yml anew from pyproject.toml'
	@echo 'make clean                    remove .venv and caches; nothing that was computed'
	@echo 'PYTHON=python3.12 after any of them chooses the Python that .venv is made with.'

repro: checked .venv
	@$(python) -m vqlib check '$(EXPERIMENT)' $(RUN)
	@test -f '$(pipeline)' || cp dvc.yaml '$(pipeline)'  # one text for all; committed with an experiment's first results
ifdef RUN
	$(python) -m dvc repro '$(pipeline):evaluate@$(RUN)'
	$(python) -m dvc repro -s '$(pipeline):report'  # of the results as they are
else
	$(python) -m dvc repro '$(pipeline)'
endif
	@echo 'The report: reports/$(EXPERIMENT)/report.html'

study: .venv
	@$(python) -m vqlib check
	$(python) -m dvc repro -s reports/dvc.yaml:study  # the results as they are: no run is made anew
	$(python) -m vqlib.reporting.study --readme

tour: .venv
	@$(python) -m vqlib check
	$(python) -m dvc repro reports/dvc.yaml:tour

test: .venv  # a file's tests stay in one process and in their order
	$(python) -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: .venv
	$(python) -m benchmarks $(ARGS)

faults: .venv
	$(python) -m pytest -n logical --maxprocesses 8 --dist loadfile tests/faults -m 'faults or not faults' \
		--faults-table=reports/faults/README.md $(ARGS)

lab: .venv
	@mkdir -p .venv/share/jupyter/lab/settings
	@printf '%s\n' '$(quiet)' > .venv/share/jupyter/lab/settings/overrides.json
	$(python) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

lint: .venv
	$(python) -m ruff check $(ARGS)
	$(python) -m ruff format $(if $(filter --fix,$(ARGS)),,--check)

lock:
	$(or $(PYTHON),python3) tools/lock.py $(ARGS)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis vqlib.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
	@echo 'Kept: data, and what was computed: runs, results, reports, build, checkpoints, .dvc/cache'

checked:
	@test -e .git || { echo 'vqlib: this folder is no git clone, and DVC needs one; use git clone, not a download' >&2; exit 1; }
	@test -f '$(dir $(pipeline))params.yaml' || { echo 'vqlib: EXPERIMENT is $(EXPERIMENT); it may be one of: $(experiments)' >&2; exit 1; }

.venv:
	@sh tools/venv.sh
