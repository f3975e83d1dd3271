# kept: `make help` lists the targets. Everything that is built lands in $(BUILD).
BUILD ?= build
CC ?= cc
PREFIX ?= /usr/local
JOBS ?= 2
.DEFAULT_GOAL := all
FUZZ_SECONDS ?= 30
VERSION := $(shell sed -n 's/^.define KEPT_VERSION "\(.*\)"/\1/p' include/kept/kept.h)
ABI := $(firstword $(subst ., ,$(VERSION)))
export BUILD JOBS CC
ifeq ($(MAKELEVEL)$(findstring -j,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(JOBS)
endif

# Where llama.cpp is. setup.sh writes this file, and rewrites it only when something changed.
GOALS := $(or $(MAKECMDGOALS),all)
ifneq ($(filter-out clean help format uninstall,$(GOALS)),)
export KEPT_LLAMA_PREFIX KEPT_LLAMA_ISA KEPT_LLAMA_TSAN
-include $(BUILD)/deps.mk
STEPS := $(if $(filter demo check setup suite methods bench,$(GOALS)),packages) \
         $(if $(filter lint,$(GOALS)),packages lint-packages) $(if $(filter fuzz,$(GOALS)),lint-packages)
$(BUILD)/deps.mk: FORCE
	@scripts/setup.sh $(STEPS) plots llama
endif

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT ?= -O3 -g
SAN ?=
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) $(SAN) -fPIC -fvisibility=hidden -pthread \
             -Iinclude -Isrc -I$(BUILD) $(LLAMA_CFLAGS) $(DEPS_CFLAGS) $(CFLAGS)
LIBS = $(LLAMA_LIBS) $(DEPS_LIBS) -lm -ldl $(LDFLAGS)
APP_LIBS = $(STORE_LIBS) $(LIBS)

LIB_SRC := $(wildcard src/base/*.c src/kern/*.c src/cache/*.c src/policy/*.c src/model/*.c)
APP_SRC := $(wildcard src/task/*.c src/train/*.c src/bench/*.c src/store/*.c src/report/*.c)
CLI_SRC := $(wildcard src/cli/*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)
TEST_LIB := $(patsubst tests/%.c,$(BUILD)/tests/%.o,$(filter-out tests/test_%.c,$(wildcard tests/*.c)))
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))
FUZZERS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/fuzz/*.c))
LIBA := $(BUILD)/libkept_app.a $(BUILD)/libkept.a
LIBSO := $(BUILD)/libkept.so.$(VERSION)
# The subcommands without main.c, for tests of them.
CLIA := $(filter-out $(BUILD)/src/cli/main.o,$(CLI_OBJ))

all: $(BUILD)/kept $(LIBSO)

# Only these files may use more than the base instruction set; the kernel table asks the CPU.
ifeq ($(shell uname -m),x86_64)
# Sums of integers stay chains, added where it is written: as trees, or put off, they do not fit the registers.
ISA_AVX2 := -mavx2 -mfma -mf16c -mbmi2 $(if $(findstring clang,$(CC)),,-fno-tree-reassoc -fno-tree-ter)
ISA_AVX512 := $(ISA_AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
ISA = $(if $(findstring kern/avx512,$<),$(ISA_AVX512),$(if $(findstring kern/avx2,$<),$(ISA_AVX2))) \
      $(if $(findstring avx2vnni,$<),-mavxvnni,$(if $(findstring avx512vnni,$<),-mavx512vnni)) $(if $(findstring kern/,$<),$(KERN_SAN))
endif

GEN := $(addprefix $(BUILD)/gen/,models.inc presets.inc page.inc)
# Objects depend on their flags, so a change of either rebuilds and nothing else does.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); f='$(CC) $(CFLAGS_ALL) $(ISA_AVX512) $(APP_LIBS)'; echo "$$f" | cmp -s - $@ || echo "$$f" >$@
# What is compiled in: the lists of share/, and of `kept report` its page and the script for its plots.
$(BUILD)/gen/%.inc: scripts/embed.sh $(wildcard share/*.tsv share/presets/* src/report/page/*) $(BUILD)/deps.mk
	@mkdir -p $(@D); scripts/embed.sh $* $(PLOTS) >$@
$(addprefix $(BUILD)/src/,cli/catalogue.o cli/preset.o report/page.o) $(addsuffix .c.syntax,$(addprefix \
    src/,cli/catalogue cli/preset report/page)): $(GEN)
# One short line a command; V=1 shows the commands themselves.
run = $(if $(V),,@echo "  $(1) $(2)" &&)
$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call run,CC,$<) $(CC) $(CFLAGS_ALL) $(ISA) -MMD -MP -c $< -o $@
$(BUILD)/libkept.a: $(LIB_OBJ)
$(BUILD)/libkept_app.a: $(APP_OBJ)
$(BUILD)/libkept_cli.a: $(CLIA)
%.a:
	@rm -f $@
	$(call run,AR,$@) ar rcs $@ $^
$(LIBSO): $(LIB_OBJ)
	$(call run,LD,$@) $(CC) -shared $(SAN) -pthread -Wl,-soname,libkept.so.$(ABI) -o $@ $^ $(LIBS)
	@ln -sf $(@F) $(BUILD)/libkept.so.$(ABI) && ln -sf $(@F) $(BUILD)/libkept.so
$(BUILD)/kept: $(CLI_OBJ) $(LIBA)
	$(call run,LD,$@) $(CC) $(SAN) -pthread -o $@ $^ $(APP_LIBS)
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(TEST_LIB) $(BUILD)/libkept_cli.a $(LIBA)
	$(call run,LD,$@) $(CC) $(SAN) -fsanitize=fuzzer -pthread -o $@ $^ $(APP_LIBS)
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_LIB) $(BUILD)/libkept_cli.a $(LIBA)
	$(call run,LD,$@) $(CC) $(SAN) -pthread -o $@ $^ $(APP_LIBS)
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(LIBA)
	$(call run,LD,$@) $(CC) $(SAN) -pthread -o $@ $^ $(APP_LIBS)
%.syntax: %
	$(CC) $(CFLAGS_ALL) $(ISA) -Werror -fsyntax-only $<

## setup      bring packages, llama.cpp, the default model and the demo's text
setup: $(BUILD)/kept
	@scripts/setup.sh model text
## demo       set up, build, and compare strategies on the default model
demo: setup
	@scripts/demo.sh
## check      set up, build, and run every test
check: all tests
	@scripts/setup.sh model text readers || true
	@scripts/check.sh
## tests      build the tests without running them
tests: $(TESTS)
## bench      time the kernels and the engine on this machine
bench: $(BUILD)/kept $(BENCHES)
	@scripts/bench.sh
## suite      the long evaluation: all models against libllama, the standing study
suite: setup all tests
	@scripts/suite.sh
## methods    measure every method and rewrite the table of docs/strategies.md (half an hour)
methods: setup $(BUILD)/tests/test_spec
	@scripts/methods.sh
## lint       layers, sizes, format, warnings of gcc and clang, headers, strings, and lint itself
lint: $(GEN)
	@scripts/lint.sh; status=$$?; scripts/lint_selftest.sh && exit $$status
syntax: $(addsuffix .syntax,$(wildcard src/*/*.c tests/*.c tests/fuzz/*.c bench/*.c))
## format     clang-format every C file in place
format:
	clang-format -i $$(git ls-files '*.c' '*.h')
## rows       rewrite the table of docs/strategies.md from the registry
rows: $(BUILD)/tests/test_spec
	@scripts/strategies-doc.sh $(BUILD)
## asan tsan  every test under AddressSanitizer and UBSan; the engine's under ThreadSanitizer
asan:
	@scripts/sanitize.sh address
tsan:
	@scripts/sanitize.sh thread
## fuzz       each program of tests/fuzz for FUZZ_SECONDS (30)
fuzz:
	@scripts/sanitize.sh fuzzer $(FUZZ_SECONDS)
fuzzers: $(FUZZERS)
## install    into $(DESTDIR)$(PREFIX): program, library, headers, kept.pc, manual; also uninstall
install: all
	@VERSION=$(VERSION) ABI=$(ABI) PREFIX=$(PREFIX) LIBS='$(LIBS)' STORE_LIBS='$(STORE_LIBS)' LLAMA_LIBDIR=$(LLAMA_LIBDIR) \
	 LLAMA_OWN=$(LLAMA_OWN) OBJECTS='$(CLI_OBJ) $(LIBA)' LIB_OBJECTS='$(LIB_OBJ)' scripts/install.sh
uninstall:
	@PREFIX=$(PREFIX) scripts/install.sh uninstall
## clean      remove what was built here (the cache stays)
clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz build-lint
help:
	@sed -n 's/^## /make /p' Makefile

FORCE:
.PHONY: all setup demo check tests bench suite methods lint syntax format rows asan tsan fuzz fuzzers install \
        uninstall clean help FORCE
.SECONDARY:
-include $(wildcard $(BUILD)/src/*/*.d $(BUILD)/tests/*.d $(BUILD)/tests/fuzz/*.d $(BUILD)/bench/*.d)
