"""The CID of any bytes, computed without a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.errors import InvalidInputError
from offchain.storage.cid import CHUNK_BYTES, Cid, cid_of, cid_to_digest, digest_to_cid

pytestmark = pytest.mark.unit

HELLO = Cid("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o")
EMPTY = Cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH")


@pytest.mark.parametrize(("content", "cid"), [(b"hello world\n", HELLO), (b"", EMPTY)])
def test_cid_of__published_vectors__equal(content: bytes, cid: Cid) -> None:
    assert cid_of(content) == cid


@given(content=st.binary(max_size=2_000), at=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_cid_of__one_byte_changed__changes(content: bytes, at: int, flip: int) -> None:
    longer = content + b"\0"
    changed = bytearray(longer)
    changed[at % len(longer)] ^= flip
    assert cid_of(bytes(changed)) != cid_of(longer)
    assert cid_of(longer) != cid_of(content)


def test_cid_of__chunks_swapped__changes() -> None:
    first, second = b"a" * CHUNK_BYTES, b"b" * CHUNK_BYTES
    assert cid_of(first + second) != cid_of(second + first)


@given(digest=st.binary(min_size=32, max_size=32))
def test_digest_to_cid__any_digest__round_trips(digest: bytes) -> None:
    cid = digest_to_cid(digest)
    assert cid.startswith("Qm")
    assert len(cid) == 46
    assert cid_to_digest(cid) == digest


@pytest.mark.parametrize(
    "cid",
    [
        "",
        "Qm",
        HELLO[:-1],
        HELLO + "1",
        HELLO + "\n",
        " " + HELLO,
        "1" + HELLO,
        HELLO.replace("T", "0"),
        "../../etc/passwd",
        "/ipfs/" + HELLO,
        "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby",
        "Qmé",
    ],
)
def test_cid_to_digest__anything_but_a_canonical_cidv0__is_refused(cid: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        cid_to_digest(cid)
    assert caught.value.field == "cid"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_digest_to_cid__wrong_length__is_refused(length: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        digest_to_cid(b"\1" * length)
    assert caught.value.field == "digest"
