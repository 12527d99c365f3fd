"""Kernels as Python functions: operators on symbolic values write LLVM IR.

A Python loop in a kernel unrolls; `Function.loop` stays a loop. IR is written as text, which is several times
faster than building it from objects, and read back by LLVM in one go.
"""

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import Union

from seventy.jit.isa import Isa
from seventy.jit.types import Type, i32, i64, pointer

Operand = Union["Value", int, float]


def _literal(type: Type, number: int | float) -> str:
    if type.kind == "f":
        # LLVM writes every float constant as the bits of a double; those of a float are rounded first.
        bits = {16: "e", 32: "f", 64: "d"}[type.bits]
        exact = struct.unpack(bits, struct.pack(bits, number))[0]
        text = f"0x{struct.unpack('Q', struct.pack('d', exact))[0]:016X}"
        if type.bits == 16:
            text = f"0xH{struct.unpack('H', struct.pack('e', number))[0]:04X}"
    else:
        text = str(int(number))
    return f"splat ({type.element} {text})" if type.lanes else text


class Value:
    """A value of a kernel under construction, with Python's operators; numbers beside it become constants."""

    __slots__ = ("function", "name", "type")

    def __init__(self, function: "Function", type: Type, name: str) -> None:
        self.function, self.type, self.name = function, type, name

    def _binary(self, other: Operand, op: str, op_float: str = "", swap: bool = False) -> "Value":
        right = self.function.constant(self.type, other)
        assert right.type == self.type or op in ("shl", "lshr", "ashr"), f"{op} of {self.type} and {right.type}"
        left, right = (right, self) if swap else (self, right)
        if self.type.kind == "f":
            assert op_float, f"no {op} of floats"
            op = op_float
        return self.function.emit(self.type, f"{op} {self.type} {left.name}, {right.name}")

    def __add__(self, other: Operand) -> "Value":
        if self.type.kind == "p":
            offset = self.function.constant(i64, other)
            return self.function.emit(pointer, f"getelementptr i8, ptr {self.name}, {offset.type} {offset.name}")
        return self._binary(other, "add", "fadd")

    __radd__ = __add__

    def __sub__(self, other: Operand) -> "Value":
        return self._binary(other, "sub", "fsub")

    def __rsub__(self, other: Operand) -> "Value":
        return self._binary(other, "sub", "fsub", swap=True)

    def __mul__(self, other: Operand) -> "Value":
        return self._binary(other, "mul", "fmul")

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> "Value":
        return self._binary(other, "", "fdiv")

    def __rtruediv__(self, other: Operand) -> "Value":
        return self._binary(other, "", "fdiv", swap=True)

    def __floordiv__(self, other: Operand) -> "Value":
        """Division towards zero."""
        return self._binary(other, "udiv" if self.type.kind == "u" else "sdiv")

    def __mod__(self, other: Operand) -> "Value":
        return self._binary(other, "urem" if self.type.kind == "u" else "srem")

    def __and__(self, other: Operand) -> "Value":
        return self._binary(other, "and")

    def __or__(self, other: Operand) -> "Value":
        return self._binary(other, "or")

    def __xor__(self, other: Operand) -> "Value":
        return self._binary(other, "xor")

    def __lshift__(self, other: Operand) -> "Value":
        return self._binary(other, "shl")

    def __rshift__(self, other: Operand) -> "Value":
        """Arithmetic for signed types, logical for unsigned ones."""
        return self._binary(other, "ashr" if self.type.kind == "i" else "lshr")

    def __neg__(self) -> "Value":
        if self.type.kind == "f":
            return self.function.emit(self.type, f"fneg {self.type} {self.name}")
        return 0 - self

    def _compare(self, other: Operand, op: str) -> "Value":
        right = self.function.constant(self.type, other)
        if self.type.kind == "f":
            text = f"fcmp o{op} {self.type} {self.name}, {right.name}"
        else:
            sign = "" if op in ("eq", "ne") else ("s" if self.type.kind == "i" else "u")
            text = f"icmp {sign}{op} {self.type} {self.name}, {right.name}"
        return self.function.emit(Type("u", 1, self.type.lanes), text)

    def __lt__(self, other: Operand) -> "Value":
        return self._compare(other, "lt")

    def __le__(self, other: Operand) -> "Value":
        return self._compare(other, "le")

    def __gt__(self, other: Operand) -> "Value":
        return self._compare(other, "gt")

    def __ge__(self, other: Operand) -> "Value":
        return self._compare(other, "ge")

    def eq(self, other: Operand) -> "Value":
        return self._compare(other, "eq")

    def select(self, yes: Operand, no: Operand) -> "Value":
        """Return `yes` where this condition holds, else `no`."""
        known = yes if isinstance(yes, Value) else no
        assert isinstance(known, Value), "select needs a value"
        a, b = (self.function.constant(known.type, x) for x in (yes, no))
        return self.function.emit(
            a.type, f"select {self.type} {self.name}, {a.type} {a.name}, {b.type} {b.name}"
        )

    def minimum(self, other: Operand) -> "Value":
        return (self < other).select(self, other)

    def maximum(self, other: Operand) -> "Value":
        return (self > other).select(self, other)

    def to(self, type: Type) -> "Value":
        """Convert the number to another type with equal lanes; from float to integer it is rounded towards zero."""
        a, b = self.type, Type(type.kind, type.bits, self.type.lanes)
        if a == b:
            return self
        if a.kind == "f" and b.kind == "f":
            op = "fpext" if b.bits > a.bits else "fptrunc"
        elif a.kind == "f":
            op = "fptoui" if b.kind == "u" else "fptosi"
        elif b.kind == "f":
            op = "uitofp" if a.kind == "u" else "sitofp"
        elif a.bits == b.bits:
            return Value(self.function, b, self.name)
        else:
            op = "trunc" if b.bits < a.bits else ("zext" if a.kind == "u" else "sext")
        return self.function.emit(b, f"{op} {a} {self.name} to {b}")

    def view(self, type: Type) -> "Value":
        """Reinterpret the bits as another type of the same size."""
        assert type.nbytes == self.type.nbytes, f"{self.type} seen as {type}"
        if str(type) == str(self.type):
            return Value(self.function, type, self.name)
        return self.function.emit(type, f"bitcast {self.type} {self.name} to {type}")

    def splat(self, lanes: int) -> "Value":
        """Return a vector with this scalar in every lane."""
        vector = Type(self.type.kind, self.type.bits, lanes)
        one = self.function.emit(vector, f"insertelement {vector} poison, {self.type} {self.name}, i32 0")
        return one.shuffle([0] * lanes)

    def shuffle(self, indices: Sequence[int], other: "Value | None" = None) -> "Value":
        """Select lanes by constant index from this vector, followed by `other`."""
        lanes = ", ".join(f"i32 {i}" for i in indices)
        second = f"{self.type} {other.name if other else 'poison'}"
        mask = f"<{len(indices)} x i32> " + ("zeroinitializer" if not any(indices) else f"<{lanes}>")
        result = Type(self.type.kind, self.type.bits, len(indices))
        return self.function.emit(result, f"shufflevector {self.type} {self.name}, {second}, {mask}")

    def lane(self, index: Operand) -> "Value":
        """Return one lane as a scalar."""
        position = self.function.constant(i32, index)
        element = self.type.element
        return self.function.emit(
            element, f"extractelement {self.type} {self.name}, {position.type} {position.name}"
        )

    def with_lane(self, index: int, value: "Value") -> "Value":
        return self.function.emit(
            self.type, f"insertelement {self.type} {self.name}, {value.type} {value.name}, i32 {index}"
        )


class Variable:
    """A place for a value that changes; LLVM keeps it in a register where it can."""

    __slots__ = ("address", "function", "type")

    def __init__(self, function: "Function", type: Type, address: Value) -> None:
        self.function, self.type, self.address = function, type, address

    def get(self) -> Value:
        return self.function.load(self.type, self.address, align=self.type.nbytes)

    def set(self, value: Operand) -> None:
        self.function.store(self.function.constant(self.type, value), self.address, align=self.type.nbytes)


class Function:
    """A function of a module under construction: loads, stores, loops and branches are its methods."""

    def __init__(
        self, module: "Module", name: str, parameters: Sequence[Type], result: Type | None, internal: bool
    ) -> None:
        self.module, self.name, self.result = module, name, result
        self.isa = module.isa
        self._parameters, self._internal = parameters, internal
        self._allocas: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self.arguments = [Value(self, type, f"%a{i}") for i, type in enumerate(parameters)]

    def _fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def emit(self, type: Type, text: str) -> Value:
        name = self._fresh()
        self._lines.append(f"  {name} = {text}")
        return Value(self, type, name)

    def do(self, text: str) -> None:
        """Append an instruction without a result."""
        self._lines.append(f"  {text}")

    def constant(self, type: Type, number: Operand) -> Value:
        if isinstance(number, Value):
            return number
        return Value(self, type, _literal(type, number))

    def vector(self, type: Type, numbers: Sequence[int]) -> Value:
        """Return a constant integer vector, lane by lane."""
        assert len(numbers) == type.lanes and type.kind != "f", f"{len(numbers)} numbers for {type}"
        return Value(self, type, f"<{', '.join(f'{type.element} {number}' for number in numbers)}>")

    def _at(self, address: Value, offset: Operand) -> Value:
        if isinstance(offset, int) and offset == 0:
            return address
        return address + offset

    def load(self, type: Type, address: Value, offset: Operand = 0, align: int = 1) -> Value:
        place = self._at(address, offset)
        return self.emit(type, f"load {type}, ptr {place.name}, align {align}")

    def store(self, value: Value, address: Value, offset: Operand = 0, align: int = 1) -> None:
        place = self._at(address, offset)
        self.do(f"store {value.type} {value.name}, ptr {place.name}, align {align}")

    def prefetch(self, address: Value, offset: Operand = 0, level: int = 1) -> None:
        """Prefetch a cache line into the cache of this level. Any address is safe."""
        place = self._at(address, offset)
        self.module.declare("llvm.prefetch.p0", "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.do(f"call void @llvm.prefetch.p0(ptr {place.name}, i32 0, i32 {4 - level}, i32 1)")

    def keep_order(self) -> None:
        """Keep loads before this ahead of those after it. Costs no instruction.

        LLVM likes to load a whole block at once and then spills; and memory read out of order is read slowly.
        """
        self.do('fence syncscope("singlethread") acq_rel')

    def broadcast(self, type: Type, address: Value, offset: Operand = 0) -> Value:
        """Load the scalar at an address into every lane of vector `type`; x86 does it in one instruction."""
        scalar = Type(type.kind, type.bits, 1)
        return self.load(scalar, address, offset).shuffle([0] * type.lanes)

    def variable(self, type: Type, initial: Operand) -> Variable:
        variable = Variable(self, type, self.memory(type.nbytes, type.nbytes))
        variable.set(initial)
        return variable

    def memory(self, nbytes: int, align: int = 64) -> Value:
        """Reserve scratch memory on the stack for the whole call."""
        name = self._fresh()
        self._allocas.append(f"  {name} = alloca [{nbytes} x i8], align {align}")
        return Value(self, pointer, name)

    def opaque(self, address: Value) -> Value:
        """Return the same address hidden from LLVM, so that stores and loads through it are kept."""
        return self.emit(pointer, f'call ptr asm "", "=r,0"(ptr {address.name})')

    def table(self, type: Type, numbers: Sequence[int]) -> Value:
        """Return the address of an array of constants; equal arrays are stored once."""
        return Value(self, pointer, self.module.table(type, tuple(numbers)))

    def call(self, name: str, result: Type | None, *arguments: Value) -> Value:
        """Call an LLVM intrinsic or a function of the same module. The value is meaningless if `result` is None."""
        types = ", ".join(str(value.type) for value in arguments)
        if name.startswith("llvm."):
            self.module.declare(name, f"declare {result or 'void'} @{name}({types})")
        given = ", ".join(f"{value.type} {value.name}" for value in arguments)
        if result is None:
            self.do(f"call void @{name}({given})")
            return Value(self, i64, "poison")
        return self.emit(result, f"call {result} @{name}({given})")

    def call_pointer(self, address: Value, *arguments: Value) -> None:
        given = ", ".join(f"{value.type} {value.name}" for value in arguments)
        self.do(f"call void {address.name}({given})")

    def ret(self, value: Value | None = None) -> None:
        self.do(f"ret {value.type} {value.name}" if value else "ret void")

    def _label(self, name: str) -> None:
        self._lines.append(f"{name[1:]}:")

    @contextlib.contextmanager
    def loop(self, start: Operand, stop: Operand | None = None, step: Operand = 1) -> Iterator[Value]:
        """Loop like range(); the index is an i64."""
        if stop is None:
            start, stop = 0, start
        index = self.variable(i64, start)
        limit = self.constant(i64, stop)
        check, body, done = self._fresh(), self._fresh(), self._fresh()
        self.do(f"br label {check}")
        self._label(check)
        value = index.get()
        self.do(f"br i1 {(value < limit).name}, label {body}, label {done}")
        self._label(body)
        yield value
        index.set(value + step)
        self.do(f"br label {check}")
        self._label(done)

    @contextlib.contextmanager
    def forever(self) -> Iterator["Loop"]:
        """Repeat the body until `loop.leave_if(condition)` holds."""
        body, done = self._fresh(), self._fresh()
        self.do(f"br label {body}")
        self._label(body)
        yield Loop(self, done)
        self.do(f"br label {body}")
        self._label(done)

    @contextlib.contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Run the body only if the scalar condition holds."""
        body, done = self._fresh(), self._fresh()
        self.do(f"br i1 {condition.name}, label {body}, label {done}")
        self._label(body)
        yield
        self.do(f"br label {done}")
        self._label(done)

    def atomic_add(self, address: Value, number: Operand) -> Value:
        """Add to an i64 atomically and return its previous value; sequentially consistent, as the next two are."""
        value = self.constant(i64, number)
        return self.emit(i64, f"atomicrmw add ptr {address.name}, {i64} {value.name} seq_cst")

    def atomic_load(self, address: Value) -> Value:
        return self.emit(i64, f"load atomic {i64}, ptr {address.name} seq_cst, align {i64.nbytes}")

    def atomic_store(self, address: Value, number: Operand) -> None:
        value = self.constant(i64, number)
        self.do(f"store atomic {i64} {value.name}, ptr {address.name} seq_cst, align {i64.nbytes}")

    def text(self) -> str:
        parameters = ", ".join(
            f"{type} noalias %a{i}" if type.kind == "p" and self._internal else f"{type} %a{i}"
            for i, type in enumerate(self._parameters)
        )
        linkage = "internal " if self._internal else ""
        head = f"define {linkage}{self.result or 'void'} @{self.name}({parameters}) #0 {{"
        tail = [] if self._lines and self._lines[-1].lstrip().startswith("ret ") else ["  ret void"]
        return "\n".join([head, "start:", *self._allocas, *self._lines, *tail, "}"])


class Loop:
    """The handle of a Function.forever loop, with which its body leaves it."""

    def __init__(self, function: Function, done: str) -> None:
        self._function, self._done = function, done

    def leave_if(self, condition: Value) -> None:
        following = self._function._fresh()
        self._function.do(f"br i1 {condition.name}, label {self._done}, label {following}")
        self._function._label(following)


class Module:
    """Functions compiled together into one object."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self._functions: list[Function] = []
        self._declarations: dict[str, str] = {}
        self._tables: dict[tuple[Type, tuple[int, ...]], str] = {}

    def declare(self, name: str, text: str) -> None:
        self._declarations[name] = text

    def table(self, type: Type, numbers: tuple[int, ...]) -> str:
        """Return the name of a constant array."""
        if (type, numbers) not in self._tables:
            name = self._tables[type, numbers] = f"@table{len(self._tables)}"
            elements = ", ".join(f"{type} {number}" for number in numbers)
            self.declare(name, f"{name} = private constant [{len(numbers)} x {type}] [{elements}], align 64")
        return self._tables[type, numbers]

    def function(
        self, name: str, parameters: Sequence[Type], result: Type | None = None, internal: bool = False
    ) -> Function:
        """Begin a new function. An internal one is called from this module only, and its pointers do not overlap."""
        function = Function(self, name, parameters, result, internal)
        self._functions.append(function)
        return function

    def text(self, attributes: str) -> str:
        """Return the module as LLVM IR; `attributes` are those of every function."""
        parts = [*self._declarations.values(), *(function.text() for function in self._functions)]
        return "\n".join([*parts, f"attributes #0 = {{ {attributes} }}", ""])


