"""Sealing: content that exactly the members of a committee can open, written with age (X25519, ChaCha20-Poly1305).

Assumptions. Sealing hides content and detects any change to it; it does not say who sealed it, and it shows the
content's length and the number of recipients (not who they are). Whoever holds an identity can open
everything ever sealed to it. Padding to size classes is left out on purpose: the shapes of activations are public.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

import bech32
import pyrage  # type: ignore[import-untyped]

from offchain.errors import InvalidInputError

EncryptionKey = NewType("EncryptionKey", bytes)

KEY_BYTES = 32
# Source: age specification (C2SP), native X25519 recipients.
_RECIPIENT_PREFIX = "age"
# Source: RFC 7748, section 4.1.
_FIELD_PRIME = 2**255 - 19
# The u-coordinates of order 1, 2, 4 and 8, on the curve and its twist: a shared secret with one of them is zero,
# whoever the sender is. age panics on them.
# Source: D. J. Bernstein, cr.yp.to/ecdh.html, "How do I validate public keys?"
_LOW_ORDER = frozenset(
    (
        0,
        1,
        _FIELD_PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
_KEY_MEND = "give the 32-byte X25519 public key of an age identity"
_NO_MATCH = "No matching keys found"


class NotARecipient(InvalidInputError):
    """The content is whole as far as one can see, and is not sealed to this identity."""

    def __init__(self) -> None:
        super().__init__("sealed", "it is not sealed to this identity", "ask one of its recipients")


class SealBroken(InvalidInputError):
    """The content is no sealed content, or was changed after it was sealed.

    Args:
        reason: what age said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("sealed", f"the seal is broken ({reason})", "fetch it again, or have it sealed again")
        self.reason = reason


@dataclass(frozen=True)
class Identity:
    """The secret that opens what is sealed to its `encryption_key`.

    Args:
        secret: in age's spelling, ``AGE-SECRET-KEY-1...``; never printed.
    Raises:
        InvalidInputError: it is no such secret.
    """

    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        self._native()

    @classmethod
    def generate(cls) -> Identity:
        """Make a fresh identity from the operating system's randomness."""
        return cls(str(pyrage.x25519.Identity.generate()))

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read an identity from a file of age's own format.

        Args:
            path: a file that only its owner may read.
        Returns:
            The identity.
        Raises:
            InvalidInputError: the file is missing, is open to others, or holds not exactly one identity.
        """
        try:
            with path.open("r", encoding="ascii") as file:
                mode = os.fstat(file.fileno()).st_mode
                lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(str(path), f"it cannot be read ({error})", "name an identity file") from error
        if mode & 0o077:
            raise InvalidInputError(str(path), "others than its owner may read it", f"chmod 600 {path}")
        if len(lines) != 1:
            raise InvalidInputError(str(path), f"it holds {len(lines)} identities", "keep one identity in the file")
        return cls(lines[0])

    def save(self, path: Path) -> None:
        """Write the identity to a new file that only its owner may read.

        Args:
            path: where; its directory exists.
        Raises:
            InvalidInputError: something is there already: an identity is never overwritten.
        """
        text = f"# public key: {to_age_recipient(self.encryption_key)}\n{self.secret}\n"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise InvalidInputError(str(path), "there is a file already", "load it, or name another file") from error
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @property
    def encryption_key(self) -> EncryptionKey:
        """The public half, as it stands on chain."""
        return from_age_recipient(str(self._native().to_public()))

    def _native(self) -> pyrage.x25519.Identity:
        try:
            return pyrage.x25519.Identity.from_str(self.secret)
        except pyrage.IdentityError:  # not chained: the cause may quote the secret
            raise InvalidInputError("identity", "it is no age X25519 identity", "make one with generate()") from None


def encryption_key(raw: bytes, name: str = "encryption_key") -> EncryptionKey:
    """Validate a public key that somebody else registered.

    Args:
        raw: as it stands on chain.
        name: what to call it in the error.
    Returns:
        The same bytes.
    Raises:
        InvalidInputError: wrong length; a point of low order, which would let anybody open the seal; or not the
            canonical spelling, to which not even the key's owner could open (age binds the spelling into the
            wrapped key).
    """
    if len(raw) != KEY_BYTES:
        raise InvalidInputError(name, f"it has {len(raw)} bytes", _KEY_MEND)
    coordinate = int.from_bytes(raw, "little")
    if coordinate >= _FIELD_PRIME:
        raise InvalidInputError(name, "it is not canonical (not below 2^255 - 19)", _KEY_MEND)
    if coordinate in _LOW_ORDER:
        raise InvalidInputError(name, "it is a point of low order, which hides nothing", _KEY_MEND)
    return EncryptionKey(bytes(raw))


def to_age_recipient(key: EncryptionKey) -> str:
    """Spell a key as age does.

    Args:
        key: a valid key.
    Returns:
        ``age1...``.
    Raises:
        InvalidInputError: as `encryption_key`.
    """
    groups = bech32.convertbits(encryption_key(key), 8, 5) or []
    return str(bech32.bech32_encode(_RECIPIENT_PREFIX, groups))


def from_age_recipient(recipient: str) -> EncryptionKey:
    """Read a key in age's spelling.

    Args:
        recipient: ``age1...``.
    Returns:
        The 32 bytes for the chain.
    Raises:
        InvalidInputError: it is no X25519 recipient.
    """
    prefix, groups = bech32.bech32_decode(recipient)
    raw = bech32.convertbits(groups, 5, 8, False) if prefix == _RECIPIENT_PREFIX and groups else None
    if raw is None:
        raise InvalidInputError("recipient", f"{recipient!r} is no age X25519 recipient", "give age1...")
    return encryption_key(bytes(raw), "recipient")


def usable_keys(raw: Sequence[bytes]) -> tuple[EncryptionKey, ...]:
    """Pick those keys to which content can be sealed.

    Args:
        raw: as they stand on chain, where anything but zero is accepted.
    Returns:
        The usable ones, in order.
    """
    usable = []
    for key in raw:
        try:
            usable.append(encryption_key(bytes(key)))
        except InvalidInputError:
            continue
    return tuple(usable)


def seal_to_usable(content: bytes, raw: Sequence[bytes]) -> bytes:
    """Seal content to those of the keys that are usable; where none is, so that nobody can open it.

    One unusable key must not keep an honest worker from handing on what the others wait for, nor from revealing.

    Args:
        content: any bytes.
        raw: keys as they stand on chain.
    Returns:
        The binary age file.
    """
    return seal(content, usable_keys(raw) or (Identity.generate().encryption_key,))


def seal(content: bytes, recipients: Sequence[EncryptionKey]) -> bytes:
    """Seal content so that each recipient alone can open it, and nobody else.

    Args:
        content: any bytes.
        recipients: at least one key; each opens without the others.
    Returns:
        The binary age file; another one at each call.
    Raises:
        InvalidInputError: there is no recipient, or ``recipients[i]`` is not a usable key.
    """
    if not recipients:
        raise InvalidInputError("recipients", "there is none", "name at least one key")
    spelled = [to_age_recipient(encryption_key(key, f"recipients[{index}]")) for index, key in enumerate(recipients)]
    sealed: bytes = pyrage.encrypt(content, [pyrage.x25519.Recipient.from_str(one) for one in spelled])
    return sealed


def unseal(sealed: bytes, identity: Identity) -> bytes:
    """Open sealed content.

    Args:
        sealed: what `seal` gave.
        identity: one recipient's.
    Returns:
        The content, exactly as it was sealed.
    Raises:
        NotARecipient: nothing in it is for this identity (or what was for it has been changed: the two look alike).
        SealBroken: it is not whole.
    """
    try:
        content: bytes = pyrage.decrypt(sealed, [identity._native()])
    except pyrage.DecryptError as error:
        if str(error) == _NO_MATCH:
            raise NotARecipient from error
        raise SealBroken(str(error)) from error
    return content
