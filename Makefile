# SPDX-License-Identifier: MIT
#
#   make            build everything into build/
#   make bench      install what is missing, build, run scenarios/quick.toml and print the table
#   make test       install what is missing, build, run every test
#   make fuzz       fuzz what the programs read of others: 30 minutes of CPU time for the light engine and 30 for all else,
#                   or FUZZ_SECONDS= of each
#   make soak       the proxy at full load with all that can befall it: ten minutes, or SOAK_SECONDS=
#   make check-gate what the regression gate finds, and how often it cries wolf: ninety minutes at most
#   make valgrind   under valgrind's memcheck, 10,000 connections, or VALGRIND_CONNECTIONS=: the proxy's, of every kind; and
#                   loadgen's, to servers that break the protocol
#   make aborted-handshakes   100,000 handshakes that are broken off, or ABORTED_HANDSHAKES=: nothing is left behind
#   make testssl    scan the proxy with testssl.sh
#   make bench-loadgen   the load generator beside openssl s_time and wrk: seven minutes
#   make bench-backend   the origin's CPU time a request beside nginx's: a minute and a half
#   make bench-sync what sharing sessions between hosts is worth and costs: more than a quarter of an hour
#   make lint       formatting, static analysis
#   make SAN=1 ...  the same with AddressSanitizer and UndefinedBehaviorSanitizer, in build/san/
#
# OPENSSL_PREFIX=DIR builds against the OpenSSL installed there; PYTHON=FILE runs another Python.

PYTHON ?= /usr/bin/python3
# V=1 shows the whole commands.
Q := $(if $(V),,@)
BUILD := build$(if $(SAN),/san)$(if $(PROXY_SLOWDOWN),/slow-$(PROXY_SLOWDOWN))

COMMON_FLAGS := -std=gnu11 -O2 -g -fno-omit-frame-pointer -pthread -MMD -MP
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wwrite-strings -Wcast-qual -Wformat=2 -Wundef -Wno-missing-field-initializers
HARDENING := -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection -D_FORTIFY_SOURCE=2
HARDENING_LINK := -pie -Wl,-z,relro,-z,now,-z,noexecstack
ifdef SAN
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
HARDENING := -fPIE
endif
# For tests of the regression gate: a proxy that is N % slower with every handshake, in build/slow-N/.
ifdef PROXY_SLOWDOWN
SLOWDOWN := -DPROXY_SLOWDOWN=$(PROXY_SLOWDOWN)
endif
ifdef OPENSSL_PREFIX
OPENSSL_CFLAGS := -I$(OPENSSL_PREFIX)/include
OPENSSL_LIBDIR := $(firstword $(wildcard $(OPENSSL_PREFIX)/lib64 $(OPENSSL_PREFIX)/lib))
OPENSSL_LINK := -L$(OPENSSL_LIBDIR) -Wl,-rpath,$(OPENSSL_LIBDIR)
endif

CFLAGS ?=
LDFLAGS ?=
ALL_CFLAGS = $(COMMON_FLAGS) $(WARNINGS) $(HARDENING) $(SANITIZE) $(SLOWDOWN) -Icommon $(OPENSSL_CFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(HARDENING_LINK) $(SANITIZE) $(OPENSSL_LINK) $(LDFLAGS)
LIBS := -lssl -lcrypto -lev -lhttp_parser -ljansson -lm

# The rooms. Every .c file of a room belongs to its program; what several programs use is in common/.
COMMON := $(wildcard common/*.c)
PROXY := $(wildcard proxy/*.c)
ECHO := $(wildcard echo-backend/*.c)
FLOOR := $(wildcard loadgen/tls_floor*.c)
LOADGEN := $(filter-out $(FLOOR),$(wildcard loadgen/*.c loadgen/light/*.c))
UNIT := $(wildcard tests/unit/*.c)

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

PROGRAMS := $(addprefix $(BUILD)/,proxy echo-backend loadgen tls-floor)

# What each job needs is installed first: deps-bench, deps-test, deps-lint.
.PHONY: all bench test unit functional lint format clean distclean
.DELETE_ON_ERROR:
all: $(PROGRAMS)

# Each room is a library, all but its main file; a program is its main file and the libraries, and a unit test links them too.
library_objects = $(call objects,$(filter-out %/main.c,$(1)))
$(BUILD)/common.a: $(call library_objects,$(COMMON))
$(BUILD)/proxy.a: $(call library_objects,$(PROXY))
$(BUILD)/echo-backend.a: $(call library_objects,$(ECHO))
$(BUILD)/loadgen.a: $(call library_objects,$(LOADGEN))
%.a:
	@rm -f $@
	@$(AR) rcs $@ $^

$(BUILD)/proxy: $(BUILD)/obj/proxy/main.o $(BUILD)/proxy.a $(BUILD)/common.a
$(BUILD)/echo-backend: $(BUILD)/obj/echo-backend/main.o $(BUILD)/echo-backend.a $(BUILD)/common.a
$(BUILD)/loadgen: $(BUILD)/obj/loadgen/main.o $(BUILD)/loadgen.a $(BUILD)/common.a
$(BUILD)/tls-floor: $(call objects,$(FLOOR)) $(BUILD)/common.a
$(BUILD)/echo-backend: LIBS += -luring
$(PROGRAMS):
	@echo "link $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# Objects of other flags, or for another OpenSSL, are not used again.
SETTINGS = $(CC) $(COMMON_FLAGS) $(HARDENING) $(OPENSSL_PREFIX) $(CFLAGS) $(LDFLAGS)
.PHONY: FORCE
$(BUILD)/settings: FORCE
	@mkdir -p $(@D)
	@echo '$(SETTINGS)' | cmp -s - $@ || echo '$(SETTINGS)' >$@

$(BUILD)/obj/%.o: %.c $(BUILD)/settings
	@mkdir -p $(@D)
	@echo "cc   $<"
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# A unit test tests/unit/test_NOUN.c is a program of its own.
UNIT_PROGRAMS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT))
$(BUILD)/obj/tests/unit/%.o: ALL_CFLAGS += -Iproxy -Iloadgen -Iecho-backend
$(UNIT_PROGRAMS): $(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(addprefix $(BUILD)/,proxy.a loadgen.a echo-backend.a common.a)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

# Fuzzing: tests/fuzz/fuzz_NOUN.c is a target of its own, and links the rooms as a unit test does, all with sanitizers. Seeds
# of a target, where it has any, are the files in tests/fuzz/seeds/fuzz_NOUN/. What the light engine calls of the system is
# replaced by tests/fuzz/light_wire.c in the targets named after it. FUZZ_SECONDS is CPU time, shared out among the targets of the light
# engine, and as much again among all the others;
# corpora, logs and what was found are in build/fuzz, and the next run begins with what the last one learnt.
FUZZ_CC ?= clang
FUZZ_SECONDS ?= $(if $(filter test,$(MAKECMDGOALS)),60,1800)
FUZZ := build/fuzz
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(FUZZ)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_LIGHT := $(filter $(FUZZ)/fuzz_light_%,$(FUZZ_TARGETS)) $(FUZZ)/light_seeds
FUZZ_ROOMS := $(addprefix $(FUZZ)/,proxy.a loadgen.a common.a)
FUZZ_CFLAGS := $(COMMON_FLAGS) -O1 -Wall -Wextra -Wno-missing-field-initializers -Icommon -Iproxy -Iloadgen \
               -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all $(OPENSSL_CFLAGS)
FUZZ_LINK := -fsanitize=address,undefined $(OPENSSL_LINK)
fuzz_objects = $(patsubst %.c,$(FUZZ)/obj/%.o,$(filter-out %/main.c,$(1)))
$(FUZZ)/common.a: $(call fuzz_objects,$(COMMON))
$(FUZZ)/proxy.a: $(call fuzz_objects,$(PROXY))
$(FUZZ)/loadgen.a: $(call fuzz_objects,$(LOADGEN))
$(FUZZ)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -c -o $@ $<
$(FUZZ_TARGETS): FUZZ_LINK += -fsanitize=fuzzer
$(FUZZ_LIGHT): FUZZ_LINK += $(foreach name,recv send shutdown close light_random session_age_ms,-Wl,--wrap=$(name))
$(FUZZ_LIGHT): $(FUZZ)/obj/tests/fuzz/light_wire.o
$(FUZZ_TARGETS) $(FUZZ)/light_seeds: $(FUZZ)/%: $(FUZZ)/obj/tests/fuzz/%.o $(FUZZ_ROOMS)
	@echo "link $@"
	$(Q)$(FUZZ_CC) $(FUZZ_LINK) -o $@ $(filter %.o,$^) $(FUZZ_ROOMS) $(LIBS)

.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ_TARGETS) $(FUZZ)/light_seeds
fuzz: deps-test
	@$(MAKE) --no-print-directory -s -j2 fuzz-programs
	@tests/fuzz/run $(FUZZ) $(FUZZ_SECONDS) $(notdir $(filter $(FUZZ)/fuzz_light_%,$(FUZZ_TARGETS)))
	@tests/fuzz/run $(FUZZ) $(FUZZ_SECONDS) $(notdir $(filter-out $(FUZZ)/fuzz_light_%,$(FUZZ_TARGETS)))

# The least server that epoll allows, what a session costs that is looked up, a client of any of a million sessions, and a
# flood of datagrams: tests/bench/.
LEAST_SERVER := $(BUILD)/bench/least-server
SESSION_STORE_COST := $(BUILD)/bench/session-store-cost
SESSION_RESUMER := $(BUILD)/bench/session-resumer
DATAGRAM_FLOOD := $(BUILD)/bench/datagram-flood
TESTED_HELPERS := $(LEAST_SERVER) $(SESSION_RESUMER) $(DATAGRAM_FLOOD)
$(BUILD)/obj/tests/bench/%.o: ALL_CFLAGS += -Iproxy
$(LEAST_SERVER): $(BUILD)/obj/tests/bench/least_server.o $(BUILD)/common.a
$(SESSION_STORE_COST): $(BUILD)/obj/tests/bench/session_store_cost.o $(BUILD)/proxy.a $(BUILD)/common.a
$(SESSION_RESUMER): $(BUILD)/obj/tests/bench/session_resumer.o $(BUILD)/common.a
$(DATAGRAM_FLOOD): $(BUILD)/obj/tests/bench/datagram_flood.o $(BUILD)/common.a
$(LEAST_SERVER) $(SESSION_STORE_COST) $(SESSION_RESUMER) $(DATAGRAM_FLOOD):
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# What testssl.sh has to say of the proxy without options: about a minute.
.PHONY: testssl
testssl: deps-testssl
	@$(MAKE) --no-print-directory -s -j2 all
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" PYTHONPYCACHEPREFIX="$(CURDIR)/build/pycache" $(PYTHON) tests/functional/testssl.py

deps-%:
	@scripts/install-deps $*

bench: deps-bench
	@$(MAKE) --no-print-directory -s -j2 all
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" $(PYTHON) scripts/tlsdyno run quick

# Costs of the load generator beside those of others: about seven minutes.
.PHONY: bench-loadgen
bench-loadgen: deps-bench-loadgen
	@$(MAKE) --no-print-directory -s -j2 all
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" $(PYTHON) scripts/bench-loadgen

# The origin's CPU time a request beside nginx's.
.PHONY: bench-backend
bench-backend: deps-bench
	@$(MAKE) --no-print-directory -s -j2 all $(LEAST_SERVER)
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" $(PYTHON) scripts/bench-backend

# What sharing sessions between hosts is worth and costs: more than a quarter of an hour.
.PHONY: bench-sync
bench-sync: deps-bench
	@$(MAKE) --no-print-directory -s -j2 all $(SESSION_STORE_COST) $(SESSION_RESUMER) $(DATAGRAM_FLOOD)
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" $(PYTHON) scripts/bench-sync

test: deps-test
	@$(MAKE) --no-print-directory -s -j2 all unit-programs $(TESTED_HELPERS)
	@$(MAKE) --no-print-directory unit functional
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)

.PHONY: unit-programs
unit-programs: $(UNIT_PROGRAMS)

unit: unit-programs
	@set -e; for program in $(UNIT_PROGRAMS); do echo "== $$program"; $$program; done

# Three at once: much of a test's time is waiting.
PYTEST_FLAGS ?= -q -n 3
functional: all $(TESTED_HELPERS)
	TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" PYTHONPYCACHEPREFIX="$(CURDIR)/build/pycache" \
	$(PYTHON) -m pytest $(PYTEST_FLAGS) -o cache_dir="$(CURDIR)/build/pytest_cache" --timeout 300 tests/functional

SOAK_SECONDS ?= 600
.PHONY: soak
soak: deps-test
	@$(MAKE) --no-print-directory -s -j2 all
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" PYTHONPYCACHEPREFIX="$(CURDIR)/build/pycache" \
	$(PYTHON) tests/functional/soak.py $(SOAK_SECONDS)

# What the regression gate finds, and how often it cries wolf: ninety minutes at most, and it can be interrupted.
# CHECK_GATE_RUNS= for other than ten runs of each kind.
CHECK_GATE_SLOWDOWNS := 2 5 10
.PHONY: check-gate
check-gate: deps-test
	@$(MAKE) --no-print-directory -s -j2 all
	@set -e; for n in $(CHECK_GATE_SLOWDOWNS); do \
		$(MAKE) --no-print-directory -s -j2 PROXY_SLOWDOWN=$$n $(BUILD)/slow-$$n/proxy; done
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" PYTHONPYCACHEPREFIX="$(CURDIR)/build/pycache" \
	$(PYTHON) tests/functional/check_gate.py

# loadgen's are shared out among its two engines and two versions of TLS; the same test has 160 of each in make test.
VALGRIND_CONNECTIONS ?= 10000
.PHONY: valgrind
valgrind: deps-test
	@$(MAKE) --no-print-directory -s -j2 all
	@TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" PYTHONPYCACHEPREFIX="$(CURDIR)/build/pycache" \
	$(PYTHON) tests/functional/valgrind.py $(VALGRIND_CONNECTIONS)
	@TLSDYNO_MEMCHECK_CONNECTIONS=$$(($(VALGRIND_CONNECTIONS) / 4)) TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" \
	PYTHONPYCACHEPREFIX="$(CURDIR)/build/pycache" $(PYTHON) -m pytest $(PYTEST_FLAGS) -p no:cacheprovider \
	-k memcheck tests/functional/test_hostile_servers.py

# The same test has a tenth of them in make test.
ABORTED_HANDSHAKES ?= 100000
.PHONY: aborted-handshakes
aborted-handshakes: deps-test
	@$(MAKE) --no-print-directory -s -j2 all
	@TLSDYNO_ABORTED_HANDSHAKES=$(ABORTED_HANDSHAKES) TLSDYNO_BUILD_DIR="$(CURDIR)/$(BUILD)" \
	PYTHONPYCACHEPREFIX="$(CURDIR)/build/pycache" $(PYTHON) -m pytest $(PYTEST_FLAGS) -p no:cacheprovider \
	-k aborted_handshakes tests/functional/test_proxy_faults.py

C_FILES = $(shell git ls-files '*.c' '*.h')
SHELL_FILES := scripts/install-deps .ci/run tests/fuzz/run
lint: deps-lint
	@clang-format --dry-run --Werror $(C_FILES)
	@cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,performance,portability \
		--suppress=missingIncludeSystem -Icommon -Iproxy -Iloadgen -Iecho-backend $(filter %.c,$(C_FILES))
	shellcheck $(SHELL_FILES)
	$(PYTHON) -m flake8 --max-line-length 120 scripts/tlsdyno scripts/tlsdyno_suite scripts/bench-backend tests/functional
	$(PYTHON) -m mypy --cache-dir build/mypy --ignore-missing-imports scripts/tlsdyno_suite

format:
	clang-format -i $(C_FILES)

clean:
	rm -rf build/obj build/fuzz/obj build/fuzz/*.a build/san build/slow-* build/unit build/bench build/*.a $(PROGRAMS)

distclean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
