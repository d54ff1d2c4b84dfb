"""As much of MATLAB's file format, version 5, as ImageNet's devkit uses: structs of text and numbers."""

import struct
import zlib
from typing import Any

from vqlib.errors import DataError

MAX_BYTES = 2**22  # of the file, and of all that it inflates to; as Python objects they take 50 times as much
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
MATRIX, COMPRESSED, UTF8, UTF16 = 14, 15, 16, 17
STRUCT, CHAR = 2, 4  # classes of a matrix


def read_structs(content: bytes, name: str) -> list[dict[str, Any]]:
    """The struct array ``name`` of a .mat file: text as str, each number array as a list.

    Raises:
        DataError: the file is damaged, of another version, or has no such variable.
    """
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        if content[126:128] != b"IM":
            raise ValueError("it is not of version 5, little-endian")
        left = MAX_BYTES
        for kind, data in _elements(content[128:]):
            if kind == COMPRESSED:
                inflated = zlib.decompressobj().decompress(data, left)
                left = max(left - len(inflated), 1)  # 0 would be no limit
                ((kind, data),) = _elements(inflated)
            found, value = _matrix(data) if kind == MATRIX else ("", None)
            if found == name and isinstance(value, list):
                return value
    except (ValueError, IndexError, KeyError, struct.error, zlib.error, RecursionError) as error:
        raise DataError(f"not a readable MATLAB file ({error})") from None
    raise DataError(f"the MATLAB file has no variable {name}")


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """(type, content) of the elements that follow one another; up to four bytes stand inside the tag itself."""
    found, offset = [], 0
    while offset < len(data):
        kind, size = struct.unpack_from("<II", data, offset)
        if kind >> 16:
            kind, size, start, offset = kind & 0xFFFF, kind >> 16, offset + 4, offset + 8
        else:
            start = offset + 8
            offset = start + (size if kind == COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError(f"{size:,} bytes belong to an element, {len(data) - start:,} follow")
        found.append((kind, data[start : start + size]))
    return found


def _matrix(data: bytes) -> tuple[str, Any]:
    """(name, value) of a matrix."""
    if not data:
        return "", []
    (_, flags), _shape, (_, name), *parts = _elements(data)
    kind = flags[0]
    if kind == STRUCT:
        (length,) = struct.unpack("<i", parts[0][1])
        names = [_text(UTF8, parts[1][1][at : at + length]) for at in range(0, len(parts[1][1]), length)]
        values = [_matrix(part)[1] for _, part in parts[2:]]
        return name.decode(), [
            dict(zip(names, values[at : at + len(names)], strict=True)) for at in range(0, len(values), len(names))
        ]
    number, content = parts[0]
    if kind == CHAR:
        return name.decode(), _text(number, content)
    code = NUMBERS[number]
    return name.decode(), list(struct.unpack(f"<{len(content) // struct.calcsize(code)}{code}", content))


def _text(kind: int, content: bytes) -> str:
    wide = kind in (4, UTF16)  # uint16 or UTF-16
    return content.decode("utf-16-le" if wide else "utf-8", "replace").split("\0")[0]
