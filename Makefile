# kept: make demo | check | bench | lint | asan | tsan | fuzz | install   (make help lists all)
BUILD ?= build
CC ?= cc
PREFIX ?= /usr/local
-include $(BUILD)/deps.mk
LLAMA ?= $(KEPT_LLAMA_PREFIX)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT ?= -O3 -g
SAN ?=
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) $(SAN) -fPIC -fvisibility=hidden -pthread \
             -Iinclude -Isrc -isystem $(LLAMA)/include $(CFLAGS)
LIBS = -L$(LLAMA)/lib -Wl,-rpath,$(LLAMA)/lib -Wl,-rpath-link,$(LLAMA)/lib \
       -lllama -lggml -lggml-base -ljansson -lcrypto -lm -ldl

LIB_SRC := $(wildcard src/base/*.c src/kern/*.c src/cache/*.c src/policy/*.c src/model/*.c)
APP_SRC := $(wildcard src/task/*.c src/bench/*.c src/report/*.c)
CLI_SRC := $(wildcard src/cli/*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
TEST_LIB := $(patsubst tests/%.c,$(BUILD)/tests/%.o,$(filter-out tests/test_%.c,$(wildcard tests/*.c)))
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))

all: $(BUILD)/kept

$(BUILD)/src/kern/avx2.o: ISA = -mavx2 -mfma -mf16c -mbmi2
$(BUILD)/src/kern/avx512.o: ISA = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mbmi2

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(ISA) -MMD -MP -c $< -o $@

$(BUILD)/libkept.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/libkept_app.a: $(APP_OBJ)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/kept: $(CLI_OBJ) $(BUILD)/libkept_app.a $(BUILD)/libkept.a
	$(CC) $(SAN) -pthread -o $@ $^ $(LIBS)
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_LIB) $(BUILD)/libkept_app.a $(BUILD)/libkept.a
	$(CC) $(SAN) -pthread -o $@ $^ $(LIBS)
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(BUILD)/libkept_app.a $(BUILD)/libkept.a
	$(CC) $(SAN) -pthread -o $@ $^ $(LIBS)

tests: $(TESTS)
clean:
	rm -rf $(BUILD)
.PHONY: all tests clean
.SECONDARY:
-include $(wildcard $(BUILD)/src/*/*.d $(BUILD)/tests/*.d $(BUILD)/bench/*.d)
