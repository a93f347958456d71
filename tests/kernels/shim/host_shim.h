// CUDA on one processor thread: every CUDA thread of a block is a fiber (ucontext), and the blocks run in turn.
//
// A fiber runs until it waits: at a barrier of the block, or at an exchange of its warp. The scheduler below lets
// the fibers run in order, first to last or last to first, and releases those who wait once all have come. A
// result that depends on the order is a race. What would hang a GPU, or is undefined there, ends the launch with
// a fault in words: a barrier that some thread does not reach, barriers at different places, a value taken from a
// lane that gave none.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <utility>
#include <vector>

#include <vector_types.h>

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace shim {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 128 * 1024; // bytes of a fiber
constexpr unsigned char UNSET = 0xA5; // fills shared memory when a block starts: as float a value no test expects

enum class Wait { nothing, block, warp };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    uint3 thread;
    bool done;
    Wait wait;
    int line;        // of the call that it waits in
    unsigned barriers; // passed so far
    unsigned mask;   // of a warp's exchange
    uint64_t given;  // to the others, at a barrier or an exchange
    uint64_t seen[WARP]; // what the lanes of its warp gave at its last exchange
    unsigned present;    // lanes that gave
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current, threads;
static bool backwards;
static const std::function<void()>* body;
static std::vector<unsigned char> dynamic_memory;
static std::vector<std::pair<void*, size_t>> static_memory;
static char fault[512];
static unsigned first_block, end_block = ~0u; // of a launch, those that run
static uint64_t votes, voters; // of the last barrier: how many gave a non-zero value, and how many came

static unsigned warp_of(unsigned thread) { return thread / WARP; }

template <class... Arguments>
static void fail(const char* text, Arguments... arguments) {
    if (!fault[0]) {
        std::snprintf(fault, sizeof(fault), text, arguments...);
    }
}

static void give_back() { swapcontext(&fibers[current].context, &scheduler); }

static void entry() {
    (*body)();
    fibers[current].done = true;
    give_back();
}

static void wait_for(Wait what, int line, uint64_t given, unsigned mask) {
    Fiber& fiber = fibers[current];
    fiber.wait = what;
    fiber.line = line;
    fiber.given = given;
    fiber.mask = mask;
    give_back();
    threadIdx = fiber.thread;
}

// A barrier of the whole block; `votes` holds afterwards how many threads gave a non-zero value.
static void barrier(int line, bool given = false) {
    ++fibers[current].barriers;
    wait_for(Wait::block, line, given, 0);
}

// An exchange among the lanes of `mask`, all of which must come to the same call.
static void exchange(int line, unsigned mask, uint64_t given) {
    if (!(mask >> (current % WARP) & 1)) {
        fail("thread %u calls a warp function (line %d) with a mask that leaves it out", current, line);
    }
    wait_for(Wait::warp, line, given, mask);
}

static uint64_t taken_from(unsigned lane, const char* name) {
    const Fiber& fiber = fibers[current];
    if (!(fiber.present >> lane & 1)) {
        fail("%s: thread %u takes a value from lane %u, which gave none", name, current, lane);
        return 0;
    }
    return fiber.seen[lane];
}

static void start(unsigned thread) {
    Fiber& fiber = fibers[thread];
    fiber.thread = uint3{thread, 0, 0};
    fiber.done = false;
    fiber.wait = Wait::nothing;
    fiber.barriers = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, entry, 0);
}

// Lets every fiber that does not wait run until it does; returns whether one ran.
static bool run_ready() {
    bool ran = false;
    for (unsigned k = 0; k < threads && !fault[0]; ++k) {
        current = backwards ? threads - 1 - k : k;
        Fiber& fiber = fibers[current];
        if (!fiber.done && fiber.wait == Wait::nothing) {
            ran = true;
            threadIdx = fiber.thread;
            swapcontext(&scheduler, &fiber.context);
        }
    }
    return ran;
}

// Releases the lanes of a warp's exchange once all that its mask names, and that still run, have come.
static bool release_exchange(unsigned thread) {
    const Fiber& asking = fibers[thread];
    if (asking.done || asking.wait != Wait::warp) {
        return false;
    }
    const unsigned first = warp_of(thread) * WARP;
    unsigned present = 0;
    for (unsigned lane = 0; lane < WARP && first + lane < threads; ++lane) {
        const Fiber& other = fibers[first + lane];
        if (!(asking.mask >> lane & 1) || other.done) {
            continue;
        }
        if (other.wait != Wait::warp || other.line != asking.line || other.mask != asking.mask) {
            return false;
        }
        present |= 1u << lane;
    }
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (present >> lane & 1) {
            Fiber& released = fibers[first + lane];
            released.present = present;
            for (unsigned from = 0; from < WARP; ++from) {
                released.seen[from] = present >> from & 1 ? fibers[first + from].given : 0;
            }
        }
    }
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (present >> lane & 1) {
            fibers[first + lane].wait = Wait::nothing;
        }
    }
    return true;
}

// Releases the block's barrier once every thread stands at it. A thread that has returned never will: that is
// a fault here, though some chips forgive it.
static bool release_barrier() {
    const Fiber& one = fibers[0];
    for (unsigned thread = 0; thread < threads; ++thread) {
        if (fibers[thread].wait != Wait::block || fibers[thread].done) {
            return false;
        }
    }
    votes = 0;
    voters = threads;
    for (unsigned thread = 0; thread < threads; ++thread) {
        Fiber& fiber = fibers[thread];
        if (fiber.line != one.line || fiber.barriers != one.barriers) {
            fail("threads 0 and %u wait at different barriers (lines %d and %d)", thread, one.line, fiber.line);
        }
        votes += fiber.given != 0;
        fiber.wait = Wait::nothing;
    }
    return true;
}

static void report_deadlock() {
    for (unsigned thread = 0; thread < threads; ++thread) {
        const Fiber& fiber = fibers[thread];
        if (!fiber.done) {
            const char* what = fiber.wait == Wait::block ? "a barrier" : "a warp function";
            fail("thread %u waits at %s (line %d) which not every thread reaches", thread, what, fiber.line);
        }
    }
}

// Stands behind each variable in shared memory (building.py): no block sees what the one before it left there.
struct Shared {
    Shared(void* at, size_t bytes) {
        static_memory.emplace_back(at, bytes);
        std::memset(at, UNSET, bytes);
    }
};

static void run_block() {
    std::memset(dynamic_memory.data(), UNSET, dynamic_memory.size());
    for (const auto& [at, bytes] : static_memory) {
        std::memset(at, UNSET, bytes);
    }
    for (unsigned thread = 0; thread < threads; ++thread) {
        start(thread);
    }
    for (;;) {
        const bool ran = run_ready();
        bool released = release_barrier();
        for (unsigned thread = 0; thread < threads; ++thread) {
            released |= release_exchange(thread);
        }
        if (fault[0] || !(ran || released)) {
            break;
        }
    }
    report_deadlock();
    for (unsigned thread = 1; thread < threads; ++thread) {
        if (fibers[thread].barriers != fibers[0].barriers) {
            fail("thread 0 passed %u barriers, thread %u passed %u", fibers[0].barriers, thread,
                 fibers[thread].barriers);
        }
    }
}

// Returns an empty string, or what went wrong.
static const char* run(unsigned grid, unsigned block, unsigned shared, int reversed,
                       const std::function<void()>& kernel) {
    fault[0] = 0;
    gridDim = dim3{grid, 1, 1};
    blockDim = dim3{block, 1, 1};
    threads = block;
    backwards = reversed;
    body = &kernel;
    dynamic_memory.resize(shared + 16);
    if (fibers.size() < block) {
        fibers.resize(block);
    }
    const unsigned end = grid < end_block ? grid : end_block;
    for (unsigned k = first_block; k < end && !fault[0]; ++k) {
        blockIdx = uint3{reversed ? first_block + end - 1 - k : k, 0, 0};
        run_block();
    }
    return fault;
}

// Of the launches that follow, only these blocks run.
extern "C" void host_blocks(unsigned first, unsigned end) {
    first_block = first;
    end_block = end;
}

// `extern __shared__ T name[];` becomes `T* name = shim::dynamic_shared<T>();` (building.py).
template <class T>
static T* dynamic_shared() {
    const uintptr_t at = reinterpret_cast<uintptr_t>(dynamic_memory.data());
    return reinterpret_cast<T*>((at + 15) & ~static_cast<uintptr_t>(15));
}

template <class T>
static uint64_t bits_of(T value) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a lane gives at most eight bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <class T>
static T from_bits(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

} // namespace shim

// ---- barriers of a block

static void __syncthreads(int line = __builtin_LINE()) { shim::barrier(line); }

static int __syncthreads_or(int given, int line = __builtin_LINE()) {
    shim::barrier(line, given);
    return shim::votes != 0;
}

static int __syncthreads_and(int given, int line = __builtin_LINE()) {
    shim::barrier(line, given);
    return shim::votes == shim::voters;
}

static int __syncthreads_count(int given, int line = __builtin_LINE()) {
    shim::barrier(line, given);
    return static_cast<int>(shim::votes);
}

// ---- warps

static void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) { shim::exchange(line, mask, 0); }

static unsigned __ballot_sync(unsigned mask, int given, int line = __builtin_LINE()) {
    shim::exchange(line, mask, given != 0);
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < shim::WARP; ++lane) {
        ballot |= static_cast<unsigned>(shim::fibers[shim::current].seen[lane]) << lane;
    }
    return ballot;
}

static int __any_sync(unsigned mask, int given, int line = __builtin_LINE()) {
    return __ballot_sync(mask, given, line) != 0;
}

static int __all_sync(unsigned mask, int given, int line = __builtin_LINE()) {
    return __ballot_sync(mask, given, line) == shim::fibers[shim::current].present;
}

// The lane that a value comes from: within `width` lanes, or else the lane itself.
template <class T>
static T shuffled(unsigned mask, T value, int source, bool inside, int line, const char* name) {
    shim::exchange(line, mask, shim::bits_of(value));
    return inside ? shim::from_bits<T>(shim::taken_from(static_cast<unsigned>(source), name)) : value;
}

template <class T>
static T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const int lane = static_cast<int>(shim::current % shim::WARP);
    const int first = lane / width * width;
    return shuffled(mask, value, first + (source & (width - 1)), true, line, "__shfl_sync");
}

template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const int lane = static_cast<int>(shim::current % shim::WARP);
    const int source = lane + static_cast<int>(delta);
    return shuffled(mask, value, source, source < lane / width * width + width, line, "__shfl_down_sync");
}

template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const int lane = static_cast<int>(shim::current % shim::WARP);
    const int source = lane - static_cast<int>(delta);
    return shuffled(mask, value, source, source >= lane / width * width, line, "__shfl_up_sync");
}

template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32, int line = __builtin_LINE()) {
    const int lane = static_cast<int>(shim::current % shim::WARP);
    const int source = lane ^ other;
    return shuffled(mask, value, source, source < lane / width * width + width, line, "__shfl_xor_sync");
}
