# Every target prints the command it runs; `make help` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)

.PHONY: help install
help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'

install: $(INSTALLED) ## The locked environment, in .venv
$(INSTALLED): requirements.lock
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: run make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

LOCALCLOUD := .venv-localcloud
PLATFORM := local
ifeq ($(PLATFORM),aws)
NEEDS_CLOUD := $(LOCALCLOUD)/.installed java
else ifeq ($(PLATFORM),gcp)
NEEDS_CLOUD := $(LOCALCLOUD)/.installed python-of-composer
else ifneq ($(PLATFORM),local)
$(error PLATFORM=$(PLATFORM) is not one of local, aws, gcp)
endif

.PHONY: install-localcloud java python-of-composer
install-localcloud: $(LOCALCLOUD)/.installed ## The environment of the local cloud, in .venv-localcloud
$(LOCALCLOUD)/.installed: localcloud/requirements.txt | $(INSTALLED)
	test -x $(LOCALCLOUD)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(LOCALCLOUD)
	$(BIN)/uv pip install --quiet --python $(LOCALCLOUD)/bin/python -r localcloud/requirements.txt
	@touch $@

# Beam and Google's provider cannot be had together on another: they want other NumPys.
python-of-composer: | $(INSTALLED)
	@$(BIN)/python -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "PLATFORM=gcp needs Python 3.11, which is Composer\x27s: run make PYTHON=python3.11 ... in a new clone")'

# The linters of pipelines and infrastructure, Terraform among them.
DEPLOY := .venv-deploy
$(DEPLOY)/.installed: deploy/requirements.txt | $(INSTALLED)
	test -x $(DEPLOY)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(DEPLOY)
	$(BIN)/uv pip install --quiet --python $(DEPLOY)/bin/python -r deploy/requirements.txt
	@touch $@

# Spark runs the scripts of Glue.
java:
	@"$${JAVA_HOME:+$$JAVA_HOME/bin/}java" -version 2>&1 | grep -q ' version "17\.' || \
		{ echo "Java 17 is needed for the local cloud, and is not the java found here: install it (Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME"; exit 1; }

.PHONY: demo look up drill clean
demo: $(INSTALLED) ## Real flights: a model trained, approved, used, replaced, defended. Minutes, on this machine only
	$(BIN)/python -m demo run

look: $(INSTALLED) ## The demo's Airflow again, with its runs and reports, until Ctrl-C
	$(BIN)/python -m demo look

up: $(INSTALLED) $(NEEDS_CLOUD) ## An Airflow to work with, until Ctrl-C; PLATFORM=aws or gcp: beside a local cloud
	$(BIN)/python -m demo up --platform $(PLATFORM)

drill: $(INSTALLED) ## All of a lake is lost and restored from its backup: is everything as it was, and does it go on?
	$(BIN)/python -m demo.drill

clean: $(INSTALLED) ## Removes .local: what `make demo` and `make up` left behind
	$(BIN)/python -m demo clean

.PHONY: test test-crashes test-localcloud test-newest-provider matrix test-account test-slow bench bench-loop lint docs policy
test: $(INSTALLED) $(DEPLOY)/.installed ## All tests but the crashes and the slow ones; ARGS='-k restore' for some
	$(BIN)/python -m pytest -m "not slow and not crash and not localcloud and not account and not compose" -n 2 --dist loadfile $(ARGS)

test-crashes: $(INSTALLED) ## Runs that are killed, cut off and tampered with at their every step
	$(BIN)/python -m pytest -m "crash and not slow and not localcloud" -n 2 --dist loadfile $(ARGS)

# In the order of the folders: files of few tests that take long are begun first, not last.
TESTS_OF_CLOUD := localcloud and $(if $(filter gcp,$(PLATFORM)),gcp,not gcp)
test-localcloud: $(INSTALLED) $(LOCALCLOUD)/.installed $(NEEDS_CLOUD) ## The DAGs on a cloud that computes on this machine: PLATFORM=aws or gcp
	$(BIN)/python -m pytest -m "$(TESTS_OF_CLOUD)" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# What the lock pins of the providers and of what they stand on is left open, the rest is as in the lock.
NEWEST := .venv-newest
$(NEWEST)/.installed: requirements.lock requirements-dev.txt | $(INSTALLED)
	@mkdir -p .local
	$(BIN)/python -c 'from tests import matrix; print(matrix.pins(but=matrix.PROVIDERS), end="")' > .local/newest.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(NEWEST)
	$(BIN)/uv pip install --quiet --python $(NEWEST)/bin/python -c .local/newest.txt -r requirements-dev.txt \
		"apache-airflow-providers-amazon>=9.39" "apache-airflow-providers-google>=22.8"
	@touch $@

test-newest-provider: $(NEWEST)/.installed $(LOCALCLOUD)/.installed $(NEEDS_CLOUD) ## The DAGs on the local cloud with the newest providers: PLATFORM=aws or gcp
	$(NEWEST)/bin/python -m pytest -m "$(TESTS_OF_CLOUD)" tests/conformance $(ARGS)

AIRFLOW ?= $(AIRFLOW_VERSION)
matrix: $(INSTALLED) ## One cell of the version matrix, on local: AIRFLOW=3.3.1 or newest, PYTHON=python3.11 or python3.12
	$(BIN)/python -m tests.matrix "$(AIRFLOW)" "$(PYTHON)"

test-account: $(INSTALLED) ## A training and two predictions in your own account or project, which bills them: PLATFORM=aws or gcp, AILERON_ACCOUNT_TEST=yes
	$(BIN)/python -m pytest -m account tests/account/test_$(PLATFORM).py $(ARGS)

test-slow: $(INSTALLED) ## The tests that start an Airflow of their own
	$(BIN)/python -m pytest -m "slow and not localcloud" $(ARGS)

.PHONY: test-compose
test-compose: $(INSTALLED) ## docker-compose.yaml on a Docker engine, killed and recovered; PROFILE=celery, aws or gcp: with that profile
	AILERON_COMPOSE_PROFILE=$(PROFILE) $(BIN)/python -m pytest -m compose -p no:cacheprovider tests/compose $(ARGS)

bench: $(INSTALLED) ## What is claimed of speed and safety, measured here
	$(BIN)/python -m benchmarks.scoring
	$(BIN)/python -m benchmarks.parsing
	$(BIN)/python -m benchmarks.publishing
	$(BIN)/python -m benchmarks.gates
	$(BIN)/python -m benchmarks.drift
	$(BIN)/python -m benchmarks.profiling

bench-loop: $(INSTALLED) ## Does the loop pay? Nine months of flights under different policies; a quarter of an hour
	$(BIN)/python -m benchmarks.closed_loop

lint: $(INSTALLED) ## Style, types, who imports whom, models
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m include.cli check-models

docs: $(INSTALLED) ## The pages of docs/ that come from code: DAGs, model.yaml, commands, settings, limits
	$(BIN)/python -m docs.generate

DOCS := .venv-docs
$(DOCS)/.installed: docs/requirements.txt | $(INSTALLED)
	test -x $(DOCS)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(DOCS)
	$(BIN)/uv pip install --quiet --python $(DOCS)/bin/python -r docs/requirements.txt
	@touch $@

.PHONY: site site-serve
site: $(DOCS)/.installed ## docs/ as a site, in .local/site; a link that leads nowhere fails it
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict

site-serve: $(DOCS)/.installed ## The site on http://127.0.0.1:8000, built anew when a page changes, until Ctrl-C
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs serve --strict --dev-addr 127.0.0.1:8000

.PHONY: lint-deploy bench-retrain
lint-deploy: $(DEPLOY)/.installed ## Pipelines and infrastructure: workflows, Cloud Build, CodeBuild, CloudFormation, Terraform
	$(DEPLOY)/bin/yamllint --strict .github cloudbuild.yaml buildspec.yml deploy
	PATH=$(CURDIR)/$(DEPLOY)/bin:$$PATH $(DEPLOY)/bin/actionlint
	$(DEPLOY)/bin/zizmor --offline --quiet --min-severity medium .github
	$(DEPLOY)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(DEPLOY)/bin/check-jsonschema --builtin-schema vendor.cloudbuild cloudbuild.yaml
	$(DEPLOY)/bin/cfn-lint deploy/aws/*.yaml
	$(DEPLOY)/bin/shellcheck deploy/*/*.sh
	$(DEPLOY)/bin/python -m deploy.gcp.offline

BASE := origin/main
bench-retrain: $(INSTALLED) ## Are models that this code trains better or worse than those of another commit? BASE=origin/main
	$(BIN)/python -m benchmarks.retrain --base "$(BASE)" $(ARGS)

policy: $(INSTALLED) ## The policies of deploy/aws and the roles of deploy/gcp from the calls that were recorded
	$(BIN)/python -m deploy.aws.policy
	$(BIN)/python -m deploy.aws.template
	$(BIN)/python -m deploy.gcp.roles

# What `deploy` takes: ENV=<name of the environment>, of Cloud Composer also PROJECT= and LOCATION=; DRY_RUN=1, OVERWRITE=1, DIRTY=1.
.PHONY: bundle deploy
TARGET = $(error give TARGET=mwaa or TARGET=composer)
bundle: $(INSTALLED) ## What Amazon MWAA or Cloud Composer reads: TARGET=mwaa SETTINGS=<file>, or TARGET=composer
	$(BIN)/python -m deploy.cli bundle "$(TARGET)" $(if $(SETTINGS),--settings "$(SETTINGS)")

deploy: $(INSTALLED) ## That bundle into an environment: TARGET=mwaa ENV=<name>; DRY_RUN=1 for the plan
	$(BIN)/python -m deploy.cli deploy "$(TARGET)" --environment "$(ENV)" $(if $(PROJECT),--project "$(PROJECT)") \
		$(if $(LOCATION),--location "$(LOCATION)") $(if $(DRY_RUN),--dry-run) $(if $(OVERWRITE),--overwrite) $(if $(DIRTY),--dirty)

.PHONY: new-model check-models model-schema restore backup restore-backup champion explain bigquery-ml
new-model: $(INSTALLED) ## Scaffolds a model: NAME=churn
	$(BIN)/python -m include.cli new-model "$(NAME)"

check-models: $(INSTALLED) ## Is every model usable? Names file, key and reason if not
	$(BIN)/python -m include.cli check-models

model-schema: $(INSTALLED) ## The JSON Schema of model.yaml, for editors
	$(BIN)/python -m include.cli model-schema

restore: $(INSTALLED) ## Puts back what readers saw before: MODEL=flight_delays PARTITION=2013-04-01
	$(BIN)/python -m include.cli restore "$(MODEL)" "$(PARTITION)"

backup: $(INSTALLED) ## Ledger, registry and what they name, while runs go on: TO=/backups/2013-04-01 ARGS=--without-source
	$(BIN)/python -m include.cli backup "$(TO)" $(ARGS)

restore-backup: $(INSTALLED) ## Puts a backup back where it was made, which must be empty: FROM=/backups/2013-04-01
	$(BIN)/python -m include.cli restore-backup "$(FROM)"

champion: $(INSTALLED) ## Who is champion, since when, and why: MODEL=flight_delays
	$(BIN)/python -m include.cli champion "$(MODEL)"

bigquery-ml: $(INSTALLED) ## The SQL of BigQuery ML for a model: MODEL=flight_delays DATASET=project.dataset DAY=2013-04-01
	$(BIN)/python -m include.cli bigquery-ml "$(MODEL)" "$(DATASET)" "$(DAY)"

explain: $(INSTALLED) ## From a prediction back to the commit: MODEL=flight_delays KEY=<key of the row>
	$(BIN)/python -m include.cli explain "$(MODEL)" "$(KEY)"

AIRFLOW_VERSION := $(shell sed -n 's/^apache-airflow==\([0-9.]*\).*/\1/p' requirements.txt)
CONSTRAINTS ?= https://raw.githubusercontent.com/apache/airflow/constraints-$(AIRFLOW_VERSION)/constraints-3.12.txt

.PHONY: lock compose-env compose-config
lock: $(INSTALLED) ## requirements.lock from the requirements and Airflow's official constraints
	@mkdir -p .local
	case "$(CONSTRAINTS)" in https://*) curl -fsSL -o .local/official.txt "$(CONSTRAINTS)" ;; *) cp "$(CONSTRAINTS)" .local/official.txt ;; esac
	# The official pins are those of Python 3.12; these packages have no such version for 3.11.
	sed -E '/^(numpy|scipy|networkx|ipython|pandas-stubs)==/s/$$/ ; python_version >= "3.12"/' .local/official.txt > .local/constraints.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes --no-header \
		-c .local/constraints.txt $(LOCK_ARGS) requirements-dev.txt -o requirements.lock

compose-env: ## .env with fresh secrets for docker compose; one that is there is left alone
	test -e .env || (umask 077 && $(PYTHON) -c 'import base64, os, re, sys; print(re.sub(r"(?m)^[A-Z_]+=$$", lambda empty: empty[0] + base64.urlsafe_b64encode(os.urandom(32)).decode(), sys.stdin.read()), end="")' < .env.example > .env.new && mv .env.new .env)

compose-config: ## Is docker-compose.yaml, with .env, what Docker Compose accepts?
	docker compose config --quiet
