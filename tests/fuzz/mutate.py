"""Seeded changes to bytes, tensor files and protocol messages: most of what comes out is nearly right."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

BYTES = [b"\0", b"\xff", b'"', b"{", b"}", b"[", b"9" * 30, b"\n", b"\x80", b"1e999", b"-1", b"null", b'\\ud800"']
COUNTS = [0, 1, 2, 3, 7, 8, 9, 24, 255, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
LARGE = [(1 << 63) - 1, 1 << 63, (1 << 64) - 1]
TEXTS = [
    "", "a", "0" * 64, "f" * 64, "F" * 64, "../" * 5 + "etc/passwd", "a" * 65, "x" * 5000, "\n\x1b[2J", "é" * 40, "\0",
    "'; DROP TABLE rounds; --", "%s%n", "client", "admin", "sha256:" + "0" * 64, "1" * 70, "-1", "{}",
]  # fmt: skip
HALVES = ["residual_factor", "kkt_factor", "delta", "kkt", "kkt_triangle", "covariance", ""]
DTYPES = ["F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "PICKLE", 3]
VALUES = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e13, -1e13, 1e-30, 1e38, 3.0]


def some_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, put in, taken out, doubled, or the end cut off."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(made) + 1)
        what = rng.randrange(6)
        if what == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            made[at:at] = rng.choice(BYTES)
        elif what == 2:
            del made[at : at + rng.choice((1, 4, 64))]
        elif what == 3:
            made[at:at] = made[at : at + rng.randrange(64)]
        elif what == 4:
            made[at : at + 1] = rng.choice(BYTES)
        elif rng.random() < 0.2:
            del made[at:]
    return bytes(made)


def split(data: bytes) -> tuple[dict[str, Any], bytearray]:
    """A good tensor file's header and its tensors' bytes."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])


def joined(header: Any, body: bytes, rng: random.Random) -> bytes:
    """A tensor file; seldom its length is a lie."""
    text = json.dumps(header).encode()
    length = len(text) if rng.random() < 0.97 else rng.choice([0, 1, len(text) + 1, 1 << 40, (1 << 64) - 1])
    return length.to_bytes(8, "little") + text + bytes(body)


def tensor_file(data: bytes, rng: random.Random) -> bytes:
    """A contribution with its header, its metadata, or its numbers changed."""
    what = rng.randrange(10)
    if what == 0:
        return some_bytes(data, rng)
    header, body = split(data)
    if what <= 3:
        _change_header(header, rng)
    elif what == 4:
        metadata = header["__metadata__"]
        key = rng.choice([*metadata, "edits", "constants", "x"])
        metadata[key] = rng.choice([*TEXTS, *map(str, COUNTS), *map(str, LARGE), "1e5", " 1", 3])
    else:
        _change_numbers(header, body, rng)
    return joined(header, body, rng)


def _change_header(header: dict[str, Any], rng: random.Random) -> None:
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    what = rng.randrange(8)
    if what == 0:
        header[f"{name.rpartition('.')[0]}.{rng.choice(HALVES)}"] = header.pop(name)
    elif what == 1:
        header[rng.choice(TEXTS) + name] = header.pop(name)
    elif what == 2:
        entry["dtype"] = rng.choice(DTYPES)
    elif what == 3:
        entry["shape"] = rng.choice(
            [entry["shape"][::-1], [*entry["shape"], 1], entry["shape"][:1], [rng.choice(COUNTS)]]
        )
    elif what == 4:
        offsets = entry["data_offsets"]
        offsets[rng.randrange(2)] = rng.choice([*COUNTS, *LARGE, -1, 1.5, None, offsets[0], offsets[1]])
    elif what == 5:
        header[rng.choice(names)] = dict(entry)
    elif what == 6:
        del header[name]
    else:
        first, second = rng.choice(names), rng.choice(names)
        header[first], header[second] = header[second], header[first]


def _change_numbers(header: dict[str, Any], body: bytearray, rng: random.Random) -> None:
    """Entries, rows, columns or the whole of a tensor set, scaled, or moved by noise."""
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    begin, end = entry["data_offsets"]
    dtype = {"F32": np.float32, "F64": np.float64}[entry["dtype"]]
    array = np.frombuffer(memoryview(body)[begin:end], dtype).reshape(entry["shape"])
    what = rng.randrange(6)
    place = tuple(rng.randrange(each) for each in array.shape)
    with np.errstate(all="ignore"):
        if what == 0:
            array[place] = rng.choice(VALUES)
        elif what == 1:
            array[place[0]] = rng.choice(VALUES)
        elif what == 2:
            array[..., : rng.randrange(array.shape[-1] + 1)] = 0
        elif what == 3:
            array *= dtype(10.0 ** rng.uniform(-12, 12))
        elif what == 4:
            array += 10.0 ** rng.uniform(-9, 1) * np.random.default_rng(rng.randrange(1 << 30)).standard_normal(
                array.shape
            )
        else:
            array[...] = array.flat[0]


def message(kind: type[Message], rng: random.Random, known: dict[str, list[Any]]) -> Message:
    """A message of its type with fields left out, at the edges of their range, or `known` by the field's name."""
    made = kind()
    for each in kind.DESCRIPTOR.fields:
        if rng.random() < 0.25:
            continue
        if each.is_repeated:
            getattr(made, each.name).extend(_value(each, rng, known) for _ in range(rng.choice((0, 1, 2, 9))))
        elif each.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(made, each.name).CopyFrom(_value(each, rng, known))
        else:
            setattr(made, each.name, _value(each, rng, known))
    return made


def _value(each: FieldDescriptor, rng: random.Random, known: dict[str, list[Any]]) -> Any:
    if each.type == FieldDescriptor.TYPE_MESSAGE:
        return message(GetMessageClass(each.message_type), rng, known)
    if each.name in known and rng.random() < 0.6:
        return rng.choice(known[each.name])
    if each.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(TEXTS)
    if each.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 64)))
    if each.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if each.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64):
        return rng.choice(COUNTS + LARGE)
    return rng.choice(COUNTS)
