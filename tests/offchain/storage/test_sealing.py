"""Sealing: each recipient opens, nobody else, and no changed byte passes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offchain.errors import InvalidInputError
from offchain.storage.sealing import (
    EncryptionKey,
    Identity,
    NotARecipient,
    SealBroken,
    encryption_key,
    from_age_recipient,
    seal,
    seal_to_usable,
    to_age_recipient,
    unseal,
    usable_keys,
)

pytestmark = pytest.mark.unit

PRIME = 2**255 - 19
MEMBERS = [Identity.generate() for _ in range(5)]
OUTSIDER = Identity.generate()
KEYS = [member.encryption_key for member in MEMBERS]

LOW_ORDER = [
    0,
    1,
    PRIME - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]
# The same points spelled otherwise: with the ignored top bit set, or plus the prime where that fits into 255 bits.
NOT_CANONICAL = [PRIME, PRIME + 1, PRIME + 9, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1]


@given(content=st.binary(max_size=3_000), size=st.integers(min_value=1, max_value=5))
@settings(max_examples=40, deadline=None)
def test_unseal__committee_of_any_size__each_member_opens_and_nobody_else(content: bytes, size: int) -> None:
    sealed = seal(content, KEYS[:size])
    for member in MEMBERS[:size]:
        assert unseal(sealed, member) == content
    for other in [*MEMBERS[size:], OUTSIDER]:
        with pytest.raises(NotARecipient):
            unseal(sealed, other)


def test_seal__known_content__does_not_show_it() -> None:
    content = b"patient 17: malignant " * 10
    assert content[:8] not in seal(content, KEYS)


def test_seal__twice__differs() -> None:
    assert seal(b"same", KEYS) != seal(b"same", KEYS)


def test_unseal__every_byte_flipped_in_turn__is_refused() -> None:
    sealed = seal(b"activation", KEYS[:3])
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1 << position % 8
        with pytest.raises((SealBroken, NotARecipient)):
            unseal(bytes(changed), MEMBERS[1])


@given(cut=st.integers(min_value=0, max_value=2**32), tail=st.binary(min_size=1, max_size=100))
@settings(max_examples=60, deadline=None)
def test_unseal__cut_or_lengthened__is_refused(cut: int, tail: bytes) -> None:
    sealed = seal(b"activation" * 20_000, KEYS[:2])  # several 64 KiB chunks of age's stream
    # The draw must not depend on the length: age adds a random "grease" line, so the length differs from call to call.
    with pytest.raises(SealBroken):
        unseal(sealed[: cut % len(sealed)], MEMBERS[0])
    with pytest.raises(SealBroken):
        unseal(sealed + tail, MEMBERS[0])


@given(content=st.binary(max_size=300))
@settings(deadline=None)
def test_unseal__not_sealed_at_all__is_refused(content: bytes) -> None:
    with pytest.raises(SealBroken):
        unseal(content, MEMBERS[0])


def test_seal__no_recipients__is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        seal(b"x", [])
    assert caught.value.field == "recipients"


@pytest.mark.parametrize("coordinate", LOW_ORDER + NOT_CANONICAL)
def test_seal__low_order_or_not_canonical_key__is_refused_by_index(coordinate: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        seal(b"x", [KEYS[0], KEYS[1], EncryptionKey(coordinate.to_bytes(32, "little"))])
    assert caught.value.field == "recipients[2]"


@pytest.mark.parametrize("coordinate", LOW_ORDER)
def test_low_order__multiplied_by_eight__is_the_neutral_element(coordinate: int) -> None:
    """The constants are what they claim: three doublings lead to the point at infinity (RFC 7748, section 5)."""
    x, z = coordinate, 1
    for _ in range(3):
        sum_squared, difference_squared = (x + z) ** 2 % PRIME, (x - z) ** 2 % PRIME
        gap = (sum_squared - difference_squared) % PRIME
        x, z = sum_squared * difference_squared % PRIME, gap * (sum_squared + 121_665 * gap) % PRIME
    assert z == 0


@pytest.mark.parametrize("length", [0, 31, 33])
def test_encryption_key__wrong_length__is_refused(length: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        encryption_key(b"\x09" * length, "worker 3")
    assert caught.value.field == "worker 3"


def test_to_age_recipient__any_identity__round_trips() -> None:
    for member in MEMBERS:
        spelled = to_age_recipient(member.encryption_key)
        assert spelled.startswith("age1")
        assert from_age_recipient(spelled) == member.encryption_key
        assert len(member.encryption_key) == 32


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "age1",
        "ssh-ed25519 AAAA",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        to_age_recipient(KEYS[0])[:-1] + "b",
    ],
)
def test_from_age_recipient__anything_else__is_refused(recipient: str) -> None:
    with pytest.raises(InvalidInputError):
        from_age_recipient(recipient)


def test_identity__saved_and_loaded__is_the_same_and_private(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    identity = Identity.generate()
    previous = os.umask(0)
    try:
        identity.save(path)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load(path) == identity
    assert unseal(seal(b"x", [identity.encryption_key]), Identity.load(path)) == b"x"


def test_identity_save__a_file_is_there__is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    identity = Identity.generate()
    identity.save(path)
    with pytest.raises(InvalidInputError):
        Identity.generate().save(path)
    assert Identity.load(path) == identity


def test_identity_load__readable_by_others__is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    Identity.generate().save(path)
    path.chmod(0o640)
    with pytest.raises(InvalidInputError) as caught:
        Identity.load(path)
    assert "chmod 600" in caught.value.mend


@pytest.mark.parametrize("text", ["", "nonsense\n", "AGE-SECRET-KEY-1QQQQ\n", "# only a comment\n", "é"])
def test_identity_load__no_identity_inside__is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "identity"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(InvalidInputError):
        Identity.load(path)


def test_identity_load__missing_file__is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        Identity.load(tmp_path / "absent")


def test_identity__printed__hides_the_secret() -> None:
    identity = Identity.generate()
    assert identity.secret not in repr(identity)
    with pytest.raises(InvalidInputError) as caught:
        Identity(identity.secret[:-1] + ("Q" if identity.secret[-1] != "Q" else "P"))
    assert identity.secret[:-1] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_usable_keys__some_unusable__keeps_the_others_in_order() -> None:
    first, second = Identity.generate().encryption_key, Identity.generate().encryption_key

    assert usable_keys([bytes(32), first, b"\xff" * 32, second, b"short"]) == (first, second)


def test_seal_to_usable__one_key_unusable__the_others_open_it() -> None:
    identity = Identity.generate()

    sealed = seal_to_usable(b"activation", [bytes(32), identity.encryption_key])

    assert unseal(sealed, identity) == b"activation"


def test_seal_to_usable__no_key_usable__nobody_opens_it() -> None:
    sealed = seal_to_usable(b"activation", [b"\xff" * 32])

    with pytest.raises(NotARecipient):
        unseal(sealed, Identity.generate())
