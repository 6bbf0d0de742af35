# The commands of the README. Everything else is CMake: see CMakePresets.json.
.PHONY: run test check test-clients build models test-models setup setup-runtime install wheel deb asan format clean

JOBS ?= $(shell nproc)
## What is built; `ci`, which the tests take, is the same in half the time: eight sources at once.
PRESET ?= release
CONFIGURE = cmake --preset $(PRESET) -DKVCAST_WARNINGS_AS_ERRORS=$(if $(STRICT),ON,OFF)

## Installs what is missing (Debian 12), builds, answers a prompt with and without KV prediction.
run: setup-runtime
	cmake --preset release -DKVCAST_BUILD_TESTS=OFF
	cmake --build --preset release -j $(JOBS) --target kvcast_program
	build/release/kvcast run -f examples/prompt.txt -n 64 --prefill exact --compare kv-prediction

## The same set-up, the trainer's included, then every test.
test: PRESET = ci
test: build
	ctest --test-dir build/$(PRESET) --output-on-failure -LE models -j $(JOBS)

## Fetches the models of models/known.json (1.6 GiB) into models/hub, or what MODELS="NAME ..." names.
models:
	python3 -m pip --version > /dev/null 2>&1 || scripts/install-dependencies.sh models
	scripts/fetch-models.py $(MODELS)

## The tests that need these models.
test-models: PRESET = ci
test-models: build
	ctest --test-dir build/$(PRESET) --output-on-failure -L models --no-tests=error -j 1

## Other people's clients, a browser and a proxy against the server (downloads them).
test-clients: setup-runtime
	scripts/install-dependencies.sh clients
	cmake --preset release
	cmake --build --preset release -j $(JOBS) --target kvcast_program
	scripts/fetch-models.py qwen2.5-coder-0.5b-instruct
	tests/clients/run.sh build/release/kvcast

build: setup
	$(CONFIGURE) -DKVCAST_BUILD_TESTS=ON
	cmake --build build/$(PRESET) -j $(JOBS)

setup:
	scripts/install-dependencies.sh runtime trainer tests
setup-runtime:
	scripts/install-dependencies.sh runtime

install: build
	cmake --install build/$(PRESET)

## dist/kvcast-*.whl: the Python package for this machine's system, without the programs.
wheel: setup-runtime
	scripts/install-dependencies.sh python
	python3 -m pip wheel --no-deps -w dist .

## build/deb/kvcast_*.deb: programs, library and the shipped bundle, without the trainer.
deb: setup-runtime
	scripts/install-dependencies.sh deb
	cmake --preset release -B build/deb -DCMAKE_INSTALL_PREFIX=/usr -DKVCAST_BUILD_TRAINER=OFF -DKVCAST_BUILD_TESTS=OFF -DKVCAST_BUILD_BENCHMARKS=OFF
	cmake --build build/deb -j $(JOBS)
	cd build/deb && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2> /dev/null || echo 0) cpack

## What CI does: warnings as errors, every test, formatting, instruction counts, sanitizers, fuzzers, clang-tidy.
check:
	scripts/check.sh

asan: setup
	cmake --preset asan && cmake --build --preset asan -j $(JOBS) && ctest --preset asan

format:
	git ls-files '*.cpp' '*.h' | xargs clang-format -i

clean:
	rm -rf build
