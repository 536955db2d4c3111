"""The cryptography: known answers, agreement, and what is refused."""

import numpy as np
import pytest

from coterie.privacy.ciphers import KeyPair, NotAuthentic, expand, expand_in_pieces, make_seed, seal, unseal


def test_a_public_key_is_that_of_the_standard():
    """RFC 7748, section 6.1: Bob's private key, and his public one."""
    bob = KeyPair(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert bob.public_key.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


def test_a_mask_is_the_key_stream_of_aes_256_in_counter_mode():
    """FIPS 197, appendix C.3 gives AES-256 of one block; at counter 0 the first block is AES of 16 zero bytes.

    AES-256 of zeros under the zero key is dc95c078a2408989ad48a21492842087 (NIST, "AESAVS", appendix B: GFSbox).
    """
    stream = expand(bytes(32), 5)
    assert stream.astype("<u8").tobytes()[:16].hex() == "dc95c078a2408989ad48a21492842087"
    assert (expand(bytes(32), 300_000)[:5] == stream).all()  # longer than a block of the making


@pytest.mark.parametrize("numbers", [1, 2**14 - 1, 2**14, 2**14 + 1, 100_003])
def test_a_mask_in_pieces_is_the_whole_mask(numbers):
    seed = make_seed()
    pieces = [(start, piece.copy()) for start, piece in expand_in_pieces(seed, numbers)]
    assert [start for start, _ in pieces] == list(range(0, numbers, 2**14))
    assert (np.concatenate([piece for _, piece in pieces]) == expand(seed, numbers)).all()


def test_two_agree_and_a_third_or_another_purpose_does_not():
    a, b, c = KeyPair(), KeyPair(), KeyPair()
    assert a.agree(b.public_key, "run", 1) == b.agree(a.public_key, "run", 1)
    assert a.agree(b.public_key, "run", 1) != c.agree(b.public_key, "run", 1)
    assert a.agree(b.public_key, "run", 1) != a.agree(b.public_key, "run", 2)
    assert a.agree(b.public_key, "r", "un") != a.agree(b.public_key, "ru", "n")
    for wrong in (bytes(32), b"short"):  # the point of order 1, and no point
        with pytest.raises(NotAuthentic):
            a.agree(wrong, "run")


def test_a_sealed_message_opens_for_its_purpose_alone():
    key = make_seed()
    sealed = seal(key, b"share", "a", "b")
    assert unseal(key, sealed, "a", "b") == b"share"
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong, purpose in ((sealed, ("b", "a")), (changed, ("a", "b")), (b"", ("a", "b"))):
        with pytest.raises(NotAuthentic):
            unseal(key, wrong, *purpose)


def test_masks_look_uniform():
    """The mean of 2^16 uniform bytes is 127.5 with deviation 73.9 / 256 = 0.289; five deviations are allowed."""
    stream = expand(make_seed(), 2**13).view(np.uint8)
    assert abs(stream.mean() - 127.5) < 5 * 0.289
