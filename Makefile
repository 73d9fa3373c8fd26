# The front door. Everything here is a short name for cmake or for a program in scripts/.
.DEFAULT_GOAL := build
.PHONY: build asan unsanitized demo test bench fuzz tidy format format-check install package clean help \
        deps-build deps-test

PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
BENCH_ARGS ?=
TEST_ARGS ?=
export CLICOLOR_FORCE := 0

build: deps-build build/release/build.ninja ## Build the program: build/release/lukskeep (the default)
	@cmake --build build/release -j $(JOBS)

demo: build ## Show the program at work on a real ext4 image, step by step
	@scripts/install-deps --for demo
	@scripts/demo

test: deps-build deps-test build asan unsanitized ## Run every test suite, with and without sanitizers
	@scripts/run-tests --jobs $(JOBS) $(TEST_ARGS)

bench: deps-build build ## Measure against cp, qemu-img, nbdkit and cryptsetup (BENCH_ARGS='--size 256M')
	@scripts/install-deps --for bench
	@bench/run $(BENCH_ARGS)

fuzz: deps-build ## Fuzz every target with libFuzzer, FUZZ_SECONDS=60 each
	@scripts/install-deps --for tidy
	@cmake --preset fuzz > build/fuzz-configure.log || { cat build/fuzz-configure.log; exit 1; }
	@cmake --build build/fuzz -j $(JOBS)
	@scripts/fuzz --seconds $(FUZZ_SECONDS) --jobs $(JOBS)

tidy: deps-build ## Run clang-tidy-19 over every source file
	@scripts/install-deps --for tidy
	@scripts/tidy --jobs $(JOBS)

format: ## Format all sources with clang-format-19
	@scripts/format --write

format-check: ## Tell which sources clang-format-19 would change
	@scripts/format --check

install: build ## Install below PREFIX=/usr/local (DESTDIR is honoured)
	@cmake --install build/release --prefix "$(PREFIX)"

package: build ## Make a Debian package: build/package/*.deb
	@cpack -G DEB --config build/release/CPackConfig.cmake -B build/package > build/package.log \
	  || { cat build/package.log; exit 1; }
	@ls build/package/*.deb

clean: ## Remove everything that was built
	rm -rf build

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

# Says what is missing where it cannot install it.
deps-build:
	@mkdir -p build
	@scripts/install-deps --for build

# Without a peer its tests are skipped on a desktop and fail in CI.
deps-test:
	@scripts/install-deps --for test || [ "$$CI" != true ]

asan: deps-build deps-test build/asan/build.ninja
	@cmake --build build/asan -j $(JOBS)

# The ciphers once more: as users run them, where valgrind can look, and on a CPU of no known kind.
unsanitized: build/release-tests/build.ninja build/portable/build.ninja
	@cmake --build build/release-tests -j $(JOBS) --target crypto_test
	@cmake --build build/portable -j $(JOBS) --target crypto_test

build/release/build.ninja: CMakePresets.json
	@mkdir -p build
	@cmake --preset release -DLUKSKEEP_TESTS=OFF > build/release-configure.log \
	  || { cat build/release-configure.log; exit 1; }

build/asan/build.ninja build/release-tests/build.ninja build/portable/build.ninja: CMakePresets.json
	@mkdir -p build
	@preset=$$(basename $(@D)); log=build/$$preset-configure.log; \
	  cmake --preset $$preset > $$log || { cat $$log; exit 1; }
