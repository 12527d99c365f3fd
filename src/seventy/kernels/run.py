"""The machine-code side of the thread pool: takes turns, publishes a step, walks its program, and parks.

A step is everything between the call of thread 0 and its return: waiting for the turn, waking the other threads,
running the program and waiting for its end. So nothing that Python does can happen in the midst of it.

The control block (one for each pool) is made of cache lines. CALL is the last step's number times 2^16, plus how many
threads it calls: in one word, so that a thread that was not called and looks late cannot take one step's call for
another's. FINISHED counts the threads that have run their part of the step, STEP is the address of its step block,
CLOSED ends the threads, TICKET counts those who wanted a turn. FUNCTIONS are the addresses of libc's sched_yield,
sem_init, sem_wait and sem_post. Then come TURNS semaphores, of which one is 1 while no step runs, and two lines for
each thread: PARKED and CLAIMED, and the semaphore that it sleeps on.

A step block belongs to whoever runs steps: address of the operations, their number, address of their counters,
threads, and on the next cache line the abort flag. An operation is (kernel, arguments, barrier before it), 32 bytes;
its counters are 128 bytes: work claimed, and threads arrived at its barrier on a line of its own.
"""

from collections.abc import Callable

from seventy.jit.build import Function, Module, Value
from seventy.jit.types import i32, i64, pointer

LINE = 64
TURNS = 64
CALL, FINISHED, STEP, CLOSED, TICKET, FUNCTIONS, FIRST_TURN = (LINE * i for i in range(7))
FIRST_THREAD = FIRST_TURN + TURNS * LINE
THREAD_BYTES = 2 * LINE
PARKED, CLAIMED, SEMAPHORE = 0, 8, LINE
LIBC = ("sched_yield", "sem_init", "sem_wait", "sem_post")

OPERATIONS, COUNT, COUNTERS, THREADS = 0, 8, 16, 24
ABORT = LINE
STEP_BYTES = 2 * LINE

MOST_THREADS = 4096
CLOSE = -1
OPERATION_BYTES = 32
COUNTER_BYTES = 128
_THREADS_MASK = (1 << 16) - 1
_PAUSES_BEFORE_YIELD = 4000
# About 2 ms: longer than Python needs between two tokens.
_PAUSES_BEFORE_PARKING = 60000


def build(module: Module) -> None:
    """Build the kernel with which a thread joins the pool: `i64 kernel(control, thread, step)`.

    Thread 0 runs the step and returns 1, or 0 if the pool is closed. A thread above 0 runs its part of every step that
    calls it, returns when the pool is closed, and at once if another runs as this thread already. CLOSE closes the
    pool: no step runs then, and threads up to those of the step are woken to end.
    """
    step_function, worker = _step(module), _worker(module)
    f = module.function("kernel", [pointer, i64, pointer], i64)
    control, thread, step = f.arguments
    done = f.variable(i64, 0)
    with f.when(thread > 0):
        f.call(worker.name, None, control, thread)
    with f.when(thread <= 0):
        ticket = f.atomic_add(control + TICKET, 1)
        _sleep(f, control, _turn(control, ticket))
        threads = f.load(i64, step, THREADS)
        with f.when(thread.eq(CLOSE)):
            f.atomic_store(control + CLOSED, 1)
            _wake(f, control, threads)
        with f.when(f.atomic_load(control + CLOSED).eq(0)):
            f.store(step, control, STEP)
            f.atomic_store(control + FINISHED, 0)
            before = f.atomic_load(control + CALL)
            f.atomic_store(control + CALL, (before | _THREADS_MASK) + 1 + threads)
            _wake(f, control, threads)
            f.call(step_function.name, None, control, thread)
            _spin(f, control, lambda: f.atomic_load(control + FINISHED) >= threads)
            done.set(1)
        _post(f, control, _turn(control, ticket + 1))
    f.ret(done.get())


def _turn(control: Value, ticket: Value) -> Value:
    """The semaphore of a ticket. With more than TURNS waiting two share one: out of order, but never two at once."""
    return control + FIRST_TURN + (ticket & (TURNS - 1)) * LINE


def _line(control: Value, thread: Value) -> Value:
    return control + FIRST_THREAD + thread * THREAD_BYTES


def _wake(f: Function, control: Value, threads: Value) -> None:
    """Wakes those of the first `threads` threads that have parked."""
    with f.loop(1, threads) as other:
        line = _line(control, other)
        # Who spins is asked without taking its cache line away.
        with f.when(f.atomic_load(line + PARKED) > 0), f.when(_exchange(f, line + PARKED, 0) > 0):
            _post(f, control, line + SEMAPHORE)


def _worker(module: Module) -> Function:
    f = module.function("worker", [pointer, i64], internal=True)
    control, thread = f.arguments
    line = _line(control, thread)
    semaphore = line + SEMAPHORE
    last, call, answer = f.variable(i64, 0), f.variable(i64, 0), f.variable(i64, 0)

    def called() -> Value:
        """Whether there is a step that this thread has not run and is wanted for."""
        call.set(f.atomic_load(control + CALL))
        answer.set(((call.get() > last.get()) & ((call.get() & _THREADS_MASK) > thread)).to(i64))
        return answer.get() > 0

    with f.when(_exchange(f, line + CLAIMED, 1).eq(0)):
        initialise = _libc(f, control, "sem_init")
        f.emit(i32, f"call i32 {initialise.name}(ptr {semaphore.name}, i32 0, i32 0)")
        with f.forever() as steps:
            patience = f.variable(i64, _PAUSES_BEFORE_PARKING)
            with f.forever() as wait:
                wait.leave_if(called())
                patience.set(patience.get() - 1)
                wait.leave_if(patience.get() <= 0)
                _pause(f)
            with f.when(answer.get() > 0):
                last.set(call.get())
                f.call("step", None, control, thread)
            with f.when(answer.get().eq(0)):
                # Whoever publishes a step either sees the mark and wakes us, or we see the step.
                f.atomic_store(line + PARKED, 1)
                stay = f.variable(i64, 1)
                with f.when(called() | (f.atomic_load(control + CLOSED) > 0)):
                    # Who took the mark away before us posts, too.
                    stay.set(1 - _exchange(f, line + PARKED, 0))
                with f.when(stay.get() > 0):
                    _sleep(f, control, semaphore)
                # No step is called while the pool is closed, and none is pending when it closes.
                steps.leave_if(f.atomic_load(control + CLOSED) > 0)
    return f


def _step(module: Module) -> Function:
    """This thread's part of the program; counts itself as finished at the end, also after an abort."""
    f = module.function("step", [pointer, i64], internal=True)
    control, thread = f.arguments
    step = f.load(pointer, control, STEP)
    abort = step + ABORT
    operation = f.variable(pointer, f.load(pointer, step, OPERATIONS))
    counters = f.variable(pointer, f.load(pointer, step, COUNTERS))
    threads = f.load(i64, step, THREADS)
    left = f.variable(i64, f.load(i64, step, COUNT))
    with f.forever() as loop:
        loop.leave_if(left.get() <= 0)
        with f.when(f.load(i64, operation.get(), 16) > 0):
            arrived = counters.get() + LINE
            f.atomic_add(arrived, 1)
            _spin(f, control, lambda: f.atomic_load(arrived) >= threads, lambda: f.atomic_load(abort) > 0)
        loop.leave_if(f.atomic_load(abort) > 0)
        kernel = f.load(pointer, operation.get())
        f.call_pointer(kernel, f.load(pointer, operation.get(), 8), counters.get(), thread, threads)
        operation.set(operation.get() + OPERATION_BYTES)
        counters.set(counters.get() + COUNTER_BYTES)
        left.set(left.get() - 1)
    f.atomic_add(control + FINISHED, 1)
    return f


def _spin(f: Function, control: Value, *conditions: Callable[[], Value]) -> None:
    """Waits until one of the conditions holds."""
    pauses = f.variable(i64, 0)
    with f.forever() as loop:
        for condition in conditions:
            loop.leave_if(condition())
        _pause(f)
        pauses.set(pauses.get() + 1)
        # More threads than cores: let the one we wait for run.
        with f.when(pauses.get() > _PAUSES_BEFORE_YIELD):
            f.call_pointer(_libc(f, control, "sched_yield"))


def _pause(f: Function) -> None:
    f.call("llvm.x86.sse2.pause", None)


def _exchange(f: Function, address: Value, number: int) -> Value:
    """Stores and gives what was there before; sequentially consistent."""
    return f.emit(i64, f"atomicrmw xchg ptr {address.name}, i64 {number} seq_cst")


def _libc(f: Function, control: Value, name: str) -> Value:
    return f.load(pointer, control, FUNCTIONS + 8 * LIBC.index(name))


def _sleep(f: Function, control: Value, semaphore: Value) -> None:
    """Waits for a post; a signal that interrupts it (EINTR) does not end it."""
    wait = _libc(f, control, "sem_wait")
    with f.forever() as loop:
        loop.leave_if(f.emit(i32, f"call i32 {wait.name}(ptr {semaphore.name})").eq(0))


def _post(f: Function, control: Value, semaphore: Value) -> None:
    f.call_pointer(_libc(f, control, "sem_post"), semaphore)
