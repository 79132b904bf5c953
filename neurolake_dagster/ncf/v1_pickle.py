"""The closed decoder of NCF v1's pickled columns: bytes in, one array out, nothing run.

The original writer stored boolean, date, timestamp, decimal and binary columns as Python pickles.
This module never hands such bytes to the standard library's unpickler, whose memo and buffers a
forged length can blow up. It is a stack machine of its own for the opcodes that a pickled numpy
array needs; the globals it may name are those of `v1_globals`. Arrow is `v1_column`'s.
"""

from collections.abc import Callable
from decimal import InvalidOperation

import numpy as np

from neurolake_dagster.ncf.checks import Damage
from neurolake_dagster.ncf.v1_globals import (
    GLOBALS,
    MISSING,
    GlobalName,
    PickledArray,
    PickledType,
    PickledValues,
    set_array,
    set_type,
)


def load_array(payload: bytes, row_count: int, step_limit: int) -> PickledValues:
    """Decode one pickled one-dimensional numpy array.

    Parameters
    ----------
    payload
        The whole pickle, protocol 4 or 5.
    row_count
        Rows the array must have.
    step_limit
        Opcodes that may be run: it bounds the memory and the time spent, since each makes at most
        one small object.

    Returns
    -------
    A numpy array of bool, number, time, `S` or `U` (a copy of the bytes), or for object arrays a
    list of None, bool, int, float, str, bytes, date, datetime, timedelta, Decimal and `Moment`.
    NaT and NA are None.

    Raises
    ------
    Damage
        If an opcode or a global is not on the list, or the shape is not `(row_count,)`.
    """
    machine = _Machine(payload, min(step_limit, 4096 + 32 * row_count))
    result = machine.run()
    if not isinstance(result, PickledArray) or result.values is None:
        raise Damage(f"the pickle holds a {type(result).__name__}, not a numpy array")
    if len(result.values) != row_count:
        raise Damage(f"{len(result.values)} rows, {row_count} expected")
    return result.values


class _Machine:
    """Runs the opcodes of one pickle; every length is checked against what is left."""

    def __init__(self, payload: bytes, step_limit: int) -> None:
        self._payload = payload
        self._position = 0
        self._step_limit = step_limit
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: list[object] = []

    def run(self) -> object:
        payload, handlers = self._payload, _HANDLERS
        try:
            for _ in range(self._step_limit):
                opcode = payload[self._position]
                self._position += 1
                if opcode == _STOP:
                    return self._stack.pop()
                handler = handlers.get(opcode)
                if handler is None:
                    raise Damage(f"opcode 0x{opcode:02x} is not on the list")
                handler(self)
            raise Damage(f"more than {self._step_limit} opcodes")
        except (IndexError, KeyError) as exc:
            raise Damage(f"malformed pickle at byte {self._position}") from exc

    def _take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._payload):
            raise Damage(f"ends {end - len(self._payload)} bytes early")
        taken = self._payload[self._position : end]
        self._position = end
        return taken

    def _number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(width), "little", signed=signed)

    def _pop_mark(self) -> list[object]:
        mark = self._marks.pop()
        if mark > len(self._stack):
            raise Damage(f"malformed pickle at byte {self._position}")
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def close_short_tuple(self, length: int) -> None:
        if length > len(self._stack):
            raise Damage(f"malformed pickle at byte {self._position}")
        items = tuple(self._stack[-length:])
        del self._stack[-length:]
        self._stack.append(items)

    def proto(self) -> None:
        if (version := self._number(1)) not in (4, 5):
            raise Damage(f"pickle protocol {version}, 4 or 5 expected")

    def frame(self) -> None:
        if (length := self._number(8)) > len(self._payload) - self._position:
            raise Damage(f"a frame of {length} bytes goes past the end")

    def push_int(self, width: int, *, signed: bool) -> None:
        self._stack.append(self._number(width, signed=signed))

    def push_long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._number(1)), "little", signed=True))

    def push_float(self) -> None:
        self._stack.append(float(np.frombuffer(self._take(8), ">f8")[0]))

    def push_text(self, width: int) -> None:
        try:
            self._stack.append(self._take(self._number(width)).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError as exc:
            raise Damage(f"text is not UTF-8 at byte {self._position}") from exc

    def push_short_bytes(self) -> None:
        length = self._payload[self._position]
        self._position += 1
        self._stack.append(self._take(length))

    def push_bytes(self, width: int) -> None:
        self._stack.append(self._take(self._number(width)))

    def push(self, value: object) -> None:
        self._stack.append(value)

    def push_list(self) -> None:
        self._stack.append([])

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def close_tuple(self) -> None:
        self._stack.append(tuple(self._pop_mark()))

    def append(self) -> None:
        value = self._stack.pop()
        self._top_list().append(value)

    def appends(self) -> None:
        values = self._pop_mark()
        self._top_list().extend(values)

    def _top_list(self) -> list[object]:
        top = self._stack[-1]
        if not isinstance(top, list):
            raise Damage(f"appends to a {type(top).__name__}")
        return top

    def memoize(self) -> None:
        self._memo.append(self._stack[-1])

    def put(self, width: int) -> None:
        if (index := self._number(width)) != len(self._memo):
            raise Damage(f"memo slot {index} comes before slot {len(self._memo)}")
        self.memoize()

    def get_short(self) -> None:
        self._stack.append(self._memo[self._payload[self._position]])
        self._position += 1

    def get(self, width: int) -> None:
        self._stack.append(self._memo[self._number(width)])

    def find_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damage("names a global by something else than text")
        full = f"{module[:80]}.{name[:80]}"
        if full in MISSING:
            self._stack.append(None)
        elif full in GLOBALS and "." not in name:
            self._stack.append(GlobalName(full))
        else:
            raise Damage(f"global {full!r} is not on the list")

    def reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
            raise Damage(f"calls a {type(function).__name__}")
        build = GLOBALS[function.name]
        try:
            self._stack.append(build(*arguments))
        except (TypeError, ValueError, OverflowError, InvalidOperation) as exc:
            if isinstance(exc, Damage):
                raise
            raise Damage(f"{function.name}: wrong arguments, {exc}") from exc

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, PickledType):
            set_type(target, state)
        elif isinstance(target, PickledArray):
            set_array(target, state)
        else:
            raise Damage(f"sets the state of a {type(target).__name__}")


_STOP = ord(".")
_HANDLERS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    ord("J"): lambda m: m.push_int(4, signed=True),
    ord("K"): lambda m: m.push_int(1, signed=False),
    ord("M"): lambda m: m.push_int(2, signed=False),
    0x8A: _Machine.push_long,
    ord("G"): _Machine.push_float,
    0x8C: lambda m: m.push_text(1),
    ord("X"): lambda m: m.push_text(4),
    0x8D: lambda m: m.push_text(8),
    ord("C"): _Machine.push_short_bytes,
    ord("B"): lambda m: m.push_bytes(4),
    0x8E: lambda m: m.push_bytes(8),
    0x96: lambda m: m.push_bytes(8),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord(")"): lambda m: m.push(()),
    ord("]"): _Machine.push_list,
    ord("("): _Machine.mark,
    ord("t"): _Machine.close_tuple,
    0x85: lambda m: m.close_short_tuple(1),
    0x86: lambda m: m.close_short_tuple(2),
    0x87: lambda m: m.close_short_tuple(3),
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    0x94: _Machine.memoize,
    ord("q"): lambda m: m.put(1),
    ord("r"): lambda m: m.put(4),
    ord("h"): _Machine.get_short,
    ord("j"): lambda m: m.get(4),
    0x93: _Machine.find_global,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
