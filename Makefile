# The commands of the README. Everything else is CMake: see CMakePresets.json.
.PHONY: run test test-clients build setup setup-runtime install asan format clean

JOBS ?= $(shell nproc)
CONFIGURE = cmake --preset release

## Installs what is missing (Debian 12), builds, answers a prompt with and without KV prediction.
run: setup-runtime
	$(CONFIGURE) -DKVCAST_BUILD_TESTS=OFF
	cmake --build --preset release -j $(JOBS) --target kvcast_program
	build/release/kvcast run -f examples/prompt.txt -n 64 --prefill exact --compare kv-prediction

## The same set-up, the trainer's included, then every test.
test: build
	ctest --preset release -j 1

## Other people's clients, a browser and a proxy against the server (downloads them).
test-clients: setup-runtime
	scripts/install-dependencies.sh clients
	$(CONFIGURE)
	cmake --build --preset release -j $(JOBS) --target kvcast_program
	tests/clients/run.sh build/release/kvcast

build: setup
	$(CONFIGURE) -DKVCAST_BUILD_TESTS=ON
	cmake --build --preset release -j $(JOBS)

setup:
	scripts/install-dependencies.sh runtime trainer tests
setup-runtime:
	scripts/install-dependencies.sh runtime

install: build
	cmake --install build/release

asan: setup
	cmake --preset asan && cmake --build --preset asan -j $(JOBS) && ctest --preset asan

format:
	git ls-files '*.cpp' '*.h' | xargs clang-format -i

clean:
	rm -rf build
