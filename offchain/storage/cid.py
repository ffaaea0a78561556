"""Content identifiers: the CIDv0 of any bytes, computed here rather than believed from a node.

One content has exactly one identifier in Interlock: the CIDv0 of its balanced dag-pb tree with 256 KiB chunks, which is
what every IPFS implementation makes by default. Another tree over the same bytes has another CID: refused on fetch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NewType

import base58

from offchain.errors import InvalidInputError

Cid = NewType("Cid", str)

# Source: Kubo's defaults, chunker "size-262144" and helpers.DefaultLinksPerBlock = (8 KiB / 46 bytes per link).
CHUNK_BYTES = 262_144
LINKS_PER_NODE = 174

DIGEST_BYTES = 32
# Source: multihash table, 0x12 = sha2-256, followed by the digest's length.
_MULTIHASH_PREFIX = bytes((0x12, DIGEST_BYTES))
# Source: UnixFS specification, enum DataType, File = 2.
_UNIXFS_FILE = 2
_MEND = "give the CIDv0 of a file, 46 characters beginning with Qm"


@dataclass(frozen=True)
class _Node:
    """What a parent must know of a child: its hash, the file bytes below it, and the encoded bytes of its tree."""

    multihash: bytes
    file_bytes: int
    tree_bytes: int


def cid_of(content: bytes) -> Cid:
    """Compute the CIDv0 that IPFS gives to a file with this content.

    Args:
        content: any bytes, the empty string included.
    Returns:
        The base58 identifier, 46 characters beginning with ``Qm``.
    Source: UnixFS and dag-pb specifications (balanced layout, leaves wrapped in dag-pb).
    """
    view = memoryview(content)
    level = [_leaf(view[start : start + CHUNK_BYTES]) for start in range(0, max(len(view), 1), CHUNK_BYTES)]
    while len(level) > 1:
        level = [_branch(level[start : start + LINKS_PER_NODE]) for start in range(0, len(level), LINKS_PER_NODE)]
    return Cid(base58.b58encode(level[0].multihash).decode("ascii"))


def cid_to_digest(cid: str) -> bytes:
    """Strip a CIDv0 to its sha-256 digest, the ``bytes32`` that stands on chain.

    Args:
        cid: a CIDv0 in its one canonical spelling.
    Returns:
        32 bytes.
    Raises:
        InvalidInputError: it is no CIDv0; a CIDv1 of the same content is refused too.
    """
    try:
        raw = base58.b58decode(cid)
    except ValueError as error:
        raise InvalidInputError("cid", f"{cid!r} is not base58", _MEND) from error
    if len(raw) != len(_MULTIHASH_PREFIX) + DIGEST_BYTES or not raw.startswith(_MULTIHASH_PREFIX):
        raise InvalidInputError("cid", f"{cid!r} is not a CIDv0 (sha2-256, 32 bytes)", _MEND)
    digest = raw[len(_MULTIHASH_PREFIX) :]
    if digest_to_cid(digest) != cid:  # the decoder forgives trailing white space, and an identifier has one spelling
        raise InvalidInputError("cid", f"{cid!r} is not written canonically", _MEND)
    return digest


def digest_to_cid(digest: bytes) -> Cid:
    """Rebuild the CIDv0 from the ``bytes32`` on chain.

    Args:
        digest: 32 bytes, a sha-256 digest of a dag-pb node.
    Returns:
        The base58 identifier.
    Raises:
        InvalidInputError: the digest is not 32 bytes long.
    """
    if len(digest) != DIGEST_BYTES:
        raise InvalidInputError("digest", f"it has {len(digest)} bytes", f"give exactly {DIGEST_BYTES} bytes")
    return Cid(base58.b58encode(_MULTIHASH_PREFIX + bytes(digest)).decode("ascii"))


def _leaf(chunk: memoryview) -> _Node:
    data = _field(1, _UNIXFS_FILE) + (_field(2, bytes(chunk)) if len(chunk) else b"") + _field(3, len(chunk))
    encoded = _field(1, data)
    return _Node(_multihash(encoded), len(chunk), len(encoded))


def _branch(children: list[_Node]) -> _Node:
    # dag-pb writes its links (field 2) before its data (field 1): the order is part of the hash.
    links = b"".join(
        _field(2, _field(1, child.multihash) + _field(2, b"") + _field(3, child.tree_bytes)) for child in children
    )
    file_bytes = sum(child.file_bytes for child in children)
    sizes = b"".join(_field(4, child.file_bytes) for child in children)
    encoded = links + _field(1, _field(1, _UNIXFS_FILE) + _field(3, file_bytes) + sizes)
    return _Node(_multihash(encoded), file_bytes, len(encoded) + sum(child.tree_bytes for child in children))


def _multihash(encoded: bytes) -> bytes:
    return _MULTIHASH_PREFIX + hashlib.sha256(encoded).digest()


def _field(number: int, value: int | bytes) -> bytes:
    """Encode one protobuf field: wire type 0 for an integer, 2 for bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
