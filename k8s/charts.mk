# Checks of k8s/ and the Tiltfile; included by the Makefile. An environment of its own, because Helm as a library and
# Kubernetes' schemas are larger than everything else together.

CHARTS_ENV := .jetbridge/charts
CHARTS_READY := $(CHARTS_ENV)/.ready
CHARTS_PYTEST := $(CHARTS_ENV)/bin/python -m pytest -p no:cacheprovider $(PYTEST_ARGS)

##@ Kubernetes

.PHONY: charts
charts: $(CHARTS_READY) ## Check charts, images and Tiltfile: lint, schemas, policies, wiring, golden renders
	@$(CHARTS_PYTEST) tests/charts

.PHONY: golden
golden: $(CHARTS_READY) ## Write the golden renders anew; review the difference
	@$(CHARTS_PYTEST) --quiet --update-golden tests/charts/test_golden.py
	@git diff --stat -- 'k8s/charts/*/golden'

$(CHARTS_READY): uv.lock pyproject.toml $(MEMBERS) | $(UV)
	@echo "==> installing what the charts' tests need (once; some 100 MB to fetch)"
	@UV_PROJECT_ENVIRONMENT=$(CHARTS_ENV) $(UV) sync --frozen --group charts --compile-bytecode --quiet
	@touch $@

# Docker where its engine answers, else buildah, which leaves HEALTHCHECK out of its own format. BUILD_ARGS is passed on, for example --platform or --build-arg.
BUILDER = $(shell docker info >/dev/null 2>&1 && echo "docker build" || echo "buildah bud --layers --format docker")
VERSION := 0.1.0

.PHONY: images
images: ## Build the three images, with Docker or buildah
	@for role in plane airflow agent; do \
	  echo "==> jetbridge-$$role:$(VERSION)"; \
	  $(BUILDER) --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) $(BUILD_ARGS) \
	    --target $$role --file k8s/images/$$role/Dockerfile --tag jetbridge-$$role:$(VERSION) .; \
	done
