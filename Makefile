# The commands of the README. Everything else is CMake: see CMakePresets.json.
.PHONY: run test build setup setup-runtime install wheel deb asan format clean

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

build: setup
	$(CONFIGURE) -DKVCAST_BUILD_TESTS=ON
	cmake --build --preset release -j $(JOBS)

setup:
	scripts/install-dependencies.sh runtime trainer tests
setup-runtime:
	scripts/install-dependencies.sh runtime

install: build
	cmake --install build/release

## dist/kvcast-*.whl: the Python package for this machine's system, without the programs.
wheel: setup-runtime
	python3 -m pip wheel --no-deps -w dist .

## build/deb/kvcast_*.deb: programs, library and the shipped bundle, without the trainer.
deb: setup-runtime
	cmake --preset release -B build/deb -DCMAKE_INSTALL_PREFIX=/usr -DKVCAST_BUILD_TRAINER=OFF -DKVCAST_BUILD_TESTS=OFF -DKVCAST_BUILD_BENCHMARKS=OFF
	cmake --build build/deb -j $(JOBS)
	cd build/deb && cpack

asan: setup
	cmake --preset asan && cmake --build --preset asan -j $(JOBS) && ctest --preset asan

format:
	git ls-files '*.cpp' '*.h' | xargs clang-format -i

clean:
	rm -rf build
