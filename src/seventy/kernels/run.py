"""The machine-code side of the thread team: walks a flat program, waits at barriers, and waits for the next step.

Control block (64-bit words, one to a cache line): 0 the call to a step (its generation times 2^16, plus how many
threads it calls), 1 abort flag, 2 threads that finished, 3 operations, 4 their number, 5 their counters, 6 threads of
this step, 7 address of sched_yield, then one word a thread: parked. A step calls the first threads; for the others
nothing happens. Generation and threads are one word, so that a thread that was not called and looks late cannot take
one step's call for another's.
An operation is (kernel, arguments, barrier before it), 32 bytes; its counters are 128 bytes: work claimed, and
threads arrived at its barrier on a line of its own.
"""

from seventy.jit.build import Function, Module, Value
from seventy.jit.types import i64, pointer

LINE = 64
CALL, ABORT, FINISHED, OPERATIONS, COUNT, COUNTERS, THREADS, YIELD, PARKED = (LINE * i for i in range(9))
MOST_THREADS = (1 << 16) - 1
OPERATION_BYTES = 32
COUNTER_BYTES = 128
_PAUSES_BEFORE_YIELD = 4000
# About 2 ms: longer than Python needs between two tokens.
_PAUSES_BEFORE_PARKING = 60000


def build(module: Module) -> None:
    """i64 kernel(control, thread, seen): thread -1 publishes a step, thread 0 runs it, others run steps as they come.

    `seen` is the call the thread answered last; the result is the new one. A thread other than 0 that returns has
    marked itself as parked.
    """
    step = _step(module)
    f = module.function("kernel", [pointer, i64, i64], i64)
    control, thread, seen = f.arguments
    last = f.variable(i64, seen)
    with f.when(thread < 0):
        before = f.atomic_load(control + CALL)
        f.atomic_add(control + CALL, (before | MOST_THREADS) + 1 + f.load(i64, control, THREADS) - before)
    with f.when(thread.eq(0)):
        f.call(step.name, None, control, thread)
        with f.forever() as loop:
            loop.leave_if(f.atomic_load(control + FINISHED) >= f.load(i64, control, THREADS))
            _pause(f)
    with f.when(thread > 0):
        parked = control + PARKED + thread * LINE
        call, answer = f.variable(i64, 0), f.variable(i64, 0)

        def called() -> Value:
            """Whether there is a step that this thread has not run and is wanted for."""
            call.set(f.atomic_load(control + CALL))
            answer.set(((call.get() > last.get()) & ((call.get() & MOST_THREADS) > thread)).to(i64))
            return answer.get() > 0

        with f.forever() as steps:
            patience = f.variable(i64, _PAUSES_BEFORE_PARKING)
            with f.forever() as wait:
                wait.leave_if(called())
                patience.set(patience.get() - 1)
                wait.leave_if(patience.get() <= 0)
                _pause(f)
            with f.when(patience.get() <= 0):
                f.atomic_store(parked, 1)
                # Whoever publishes a step either sees the mark and wakes us, or we see the step.
                with f.when(called()):
                    f.atomic_store(parked, 0)
            steps.leave_if(answer.get().eq(0))
            last.set(call.get())
            f.call(step.name, None, control, thread)
    f.ret(last.get())


def _pause(f: Function) -> None:
    f.call("llvm.x86.sse2.pause", None)


def _step(module: Module) -> Function:
    """This thread's part of the program; counts itself as finished at the end, also after an abort."""
    f = module.function("step", [pointer, i64], internal=True)
    control, thread = f.arguments
    operation = f.variable(pointer, f.load(pointer, control, OPERATIONS))
    counters = f.variable(pointer, f.load(pointer, control, COUNTERS))
    threads = f.load(i64, control, THREADS)
    left = f.variable(i64, f.load(i64, control, COUNT))
    with f.forever() as loop:
        loop.leave_if(left.get() <= 0)
        with f.when(f.load(i64, operation.get(), 16) > 0):
            _barrier(f, control, counters.get() + LINE, threads)
        loop.leave_if(f.atomic_load(control + ABORT) > 0)
        kernel = f.load(pointer, operation.get())
        f.call_pointer(kernel, f.load(pointer, operation.get(), 8), counters.get(), thread, threads)
        operation.set(operation.get() + OPERATION_BYTES)
        counters.set(counters.get() + COUNTER_BYTES)
        left.set(left.get() - 1)
    f.atomic_add(control + FINISHED, 1)
    return f


def _barrier(f: Function, control: Value, arrived: Value, threads: Value) -> None:
    f.atomic_add(arrived, 1)
    pauses = f.variable(i64, 0)
    with f.forever() as loop:
        loop.leave_if(f.atomic_load(arrived) >= threads)
        loop.leave_if(f.atomic_load(control + ABORT) > 0)
        _pause(f)
        pauses.set(pauses.get() + 1)
        # More threads than cores: let the one we wait for run.
        with f.when(pauses.get() > _PAUSES_BEFORE_YIELD):
            f.call_pointer(f.load(pointer, control, YIELD))
