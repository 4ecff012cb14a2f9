# hmnet-pipe. On a fresh machine with Python 3.11+, make and a package index:
#   make demo   creates .venv, installs, runs the whole pipeline offline and prints the result
#   make diagnostic  the same on a corpus in which each group of mentions is decided by one thing: which system sees what
#   make test   creates .venv, installs, checks style and types, and runs the tests (about 12 minutes on 2 cores)
#   make check  the same with the fast tests alone, in a minute and a half
#   make run    RUN=runs/x PRESET=twitter2015 TEXT=FOLDER IMAGES=FOLDER: one run from its data to a trained system
#   make table  the same with SYSTEMS='bert-crf hmnet' SEEDS='1 49 1234': every training of the grid, and a table
#   make experiment  GRID=demo (or table1, low-resource, ..., or a file): the paper's experiments, and their tables
# All are cheap to repeat: what is up to date is not done again. `make -n run ...` says what would be done, and -j is safe.

PYTHON ?= python3
VENV   ?= .venv
RUN    ?= runs/demo

# Of `make run` and `make table`. What is left out is what RUN/run.toml says, or its preset. The options of DETECT, EXTRACT and TRAIN are those
# of the commands (DETECT='--min-score 0.3'), and like those they are kept in run.toml.
PRESET  ?=
TASK    ?=
TEXT    ?=
IMAGES  ?=
ENCODER ?=
DETECT  ?=
EXTRACT ?=
TRAIN   ?=
SYSTEM  ?= hmnet
SEED    ?= 1
SYSTEMS ?= $(SYSTEM)
SEEDS   ?= $(SEED)
# Low-resource trainings beside the full ones: SHOTS='0 50' is all samples, and 50 of each class drawn with each of SUBSETS.
SHOTS   ?= 0
SUBSETS ?= 1
# RECIPES='run as-published' trains by [train] of run.toml, the same for all systems, and beside it by each system's own recipe; NAME by
# the table [recipes.NAME] of run.toml.
RECIPES ?= run

# Of `make experiment`: a file, or the name of a grid in experiments/; and how many trainings run at once.
GRID ?= demo
JOBS ?= 1

DATA ?= ../shared/data

BIN := $(VENV)/bin
# The install is a file target: made again only when what it depends on changes.
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo demo-finetune demo-weights diagnostic bench run table experiment check test soak lint types wheel clean FORCE

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

install: $(INSTALLED)  ## create .venv with the tested versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("hmnet-pipe needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## run the demonstration, offline: text alone against HMNeT on a generated corpus
	$(BIN)/hmnet-pipe demo $(RUN)

# The targets of a run are the records of its stages, RUN/stages/<stage>.json, which each stage writes last and whole; .PRECIOUS, since
# a record from before an interrupted or failed stage is still true. Make compares their times with one another. What else a stage
# depends on (its settings, texts, images, weights, whether its tables are there) `hmnet-pipe changed` compares with the record.
ifneq ($(filter run table $(RUN)/%,$(MAKECMDGOALS)),)
ifneq ($(word 2,$(RUN)),)
$(error make cannot carry a path with spaces: RUN=$(RUN); choose another, or use the hmnet-pipe commands themselves)
endif
ifeq ($(wildcard $(BIN)/hmnet-pipe),)
$(error $(BIN)/hmnet-pipe is not there; run `make install` first)
endif

HMNET   := $(BIN)/hmnet-pipe
STAGES  := $(RUN)/stages
WHERE   := $(if $(PRESET),--preset '$(PRESET)') $(if $(TASK),--task '$(TASK)') $(if $(TEXT),--text '$(TEXT)') $(if $(IMAGES),--images '$(IMAGES)')
TRAINED := $(if $(ENCODER),--encoder '$(ENCODER)') $(TRAIN)
CHANGED := $(shell $(HMNET) changed $(RUN) $(SYSTEMS:%=--system %) $(SEEDS:%=--seed %) \
             $(SHOTS:%=--shots %) $(SUBSETS:%=--subset-seed %) $(RECIPES:%=--recipe %) \
             -- prepare $(WHERE) -- detect $(DETECT) -- extract $(EXTRACT) -- train $(TRAINED))
ifneq ($(.SHELLSTATUS),0)
$(error nothing was done; a new run needs RUN=, TEXT=, IMAGES= and PRESET= or TASK=)
endif
when   = $(if $(filter $(1),$(CHANGED)),FORCE)
# Of system, seed, shots, subset and recipe: the name of the training's stage, as manifests/trial.py forms it.
trial  = train-$(1)-seed-$(2)$(if $(filter-out 0,$(3)),-shots-$(3)-subset-$(4))$(if $(filter-out run,$(5)),$(if $(filter as-published,$(5)),,-by)-$(5))
record = $(STAGES)/$(trial).json
# $(call grid,RULE): RULE of each training. All samples are one training, whatever subsets there are.
grid   = $(foreach recipe,$(RECIPES),$(foreach system,$(SYSTEMS),$(foreach seed,$(SEEDS),$(foreach shots,$(SHOTS),$(foreach subset,$(if \
           $(filter-out 0,$(shots)),$(SUBSETS),1),$(call $(1),$(system),$(seed),$(shots),$(subset),$(recipe)))))))
MODELS := $(call grid,record)

.PRECIOUS: $(STAGES)/prepare.json $(STAGES)/detect.json $(STAGES)/extract.json $(MODELS)

$(STAGES)/prepare.json: $(call when,prepare)
	$(HMNET) prepare $(RUN) $(WHERE)

$(STAGES)/detect.json: $(STAGES)/prepare.json $(call when,detect)
	$(HMNET) detect $(RUN) $(DETECT)

$(STAGES)/extract.json: $(STAGES)/prepare.json $(STAGES)/detect.json $(call when,extract)
	$(HMNET) extract $(RUN) $(EXTRACT)

# What SYSTEMS read besides: other feature sets, and graphs.
OTHERS := $(filter-out prepare detect extract,$(sort $(foreach word,$(CHANGED),$(if \
            $(filter reads:%,$(word)),$(lastword $(subst :, ,$(word)))))))
define making
$(STAGES)/$(1).json: $(STAGES)/prepare.json $(STAGES)/detect.json $(call when,$(1))
	$(HMNET) $(if $(filter extract-%,$(1)),extract $(RUN) --features $(1:extract-%=%) $(EXTRACT),$(1) $(RUN))

endef
$(foreach stage,$(OTHERS),$(eval $(call making,$(stage))))

define training
$(record): $(patsubst reads:$(1):%,$(STAGES)/%.json,$(filter reads:$(1):%,$(CHANGED))) $(call when,$(trial))
	$(HMNET) train $(RUN) --system $(1) --seed $(2) $(if $(filter-out 0,$(3)),--shots $(3) --subset-seed $(4)) $(if $(filter-out run,$(5)),--recipe $(5)) $(TRAINED)

endef
define rule
$(eval $(training))
endef
$(call grid,rule)

run: $(MODELS)  ## make one run, from its data to a trained system; see the top of this file

table: $(MODELS)  ## train SYSTEMS with SEEDS and print the mean and deviation of their scores
	@$(HMNET) table $(RUN) $(SYSTEMS:%=--system %) $(SEEDS:%=--seed %)
endif

experiment: $(INSTALLED)  ## train GRID, which a TOML file describes (see docs/experiments.md), and print its table
	$(BIN)/hmnet-pipe experiment run $(GRID) --jobs $(JOBS)
	@$(BIN)/hmnet-pipe experiment table $(GRID)

demo-finetune: $(INSTALLED)  ## run the demonstration, then train end to end and on the refreshed cache
	$(BIN)/hmnet-pipe demo $(RUN) --finetune

diagnostic: $(INSTALLED)  ## train six systems with three seeds on the diagnostic corpora, and print F1 by group
	$(BIN)/hmnet-pipe experiment run diagnostic --jobs $(JOBS)
	@$(BIN)/hmnet-pipe table runs/diagnostic/ner --groups
	@$(BIN)/hmnet-pipe table runs/diagnostic/re --groups

bench: $(INSTALLED)  ## measure speed and memory, as tables and JSON in build/benchmarks (DATA holds twitter2015/ and photos/)
	$(BIN)/python benchmarks/extract_speed.py --photos $(DATA)/photos
	$(BIN)/python benchmarks/detect_speed.py --photos $(DATA)/photos
	$(BIN)/python benchmarks/train_speed.py --text $(DATA)/twitter2015
	$(BIN)/python benchmarks/systems_speed.py
	$(BIN)/python benchmarks/predict_speed.py --photos $(DATA)/photos --texts $(DATA)/twitter2015/valid.txt
	$(BIN)/python benchmarks/finetune_cost.py
	$(BIN)/python benchmarks/cache_read.py
	$(BIN)/python benchmarks/planning.py
	$(BIN)/python benchmarks/scheduler.py
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/report_page.py

demo-weights: $(INSTALLED)  ## train the demonstration's detector and backbone again (about 35 minutes)
	$(BIN)/python -m hmnet_pipe.stages.demo.train_weights stages/vision/demo_fasterrcnn.safetensors

# Two processes; each file's tests stay together, since they share what they set up.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
SOAK   ?= --kills 30 --flips 1000 --seed 1

check: lint types  ## check style and types, and run the fast tests: for every change
	$(PYTEST) -m 'not slow'

test: lint types  ## check style and types, and run all tests but those of soak alone
	$(PYTEST) -m 'not soak'

soak: $(INSTALLED)  ## run the longest tests, and campaigns of random faults at full length (SOAK: their counts and seed)
	$(PYTEST) -m 'campaign or soak' $(SOAK)

lint: $(INSTALLED)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A checkout's folder name need not be an identifier, so the types of an installed copy are checked.
types: $(INSTALLED)  ## check the types of the package, the tests and the benchmarks
	rm -rf build/types
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/types .
	MYPYPATH=build/types:benchmarks $(BIN)/mypy build/types/hmnet_pipe tests benchmarks

wheel: $(INSTALLED)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove build products, not runs
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
