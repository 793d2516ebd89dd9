import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.encoding.cryptography import CHUNK_BYTES, ciphertext_bytes, decrypt_file, encrypt_file, key_hash
from learnchain.rejection import Rejected, RejectionReason

KEY, OTHER = b"\1" * 32, b"\2" * 32
LARGE = 2 * CHUNK_BYTES + 77


@pytest.fixture
def sealed(tmp_path):
    plain, encrypted = tmp_path / "plain", tmp_path / "encrypted"
    plain.write_bytes(bytes(range(251)) * (LARGE // 251 + 1))
    encrypt_file(plain, encrypted, KEY)
    return plain, encrypted


def refusal(encrypted, key=KEY, maximum=1 << 30):
    target = encrypted.with_name("opened")
    with pytest.raises(Rejected) as caught:
        decrypt_file(encrypted, target, key, maximum)
    assert not target.exists()
    assert not target.with_name("opened.partial").exists()
    return caught.value.reason


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE])
def test_what_was_encrypted_comes_back_and_the_size_is_foreseen(tmp_path, size):
    plain, encrypted, opened = tmp_path / "plain", tmp_path / "encrypted", tmp_path / "opened"
    plain.write_bytes(b"x" * size)
    assert encrypt_file(plain, encrypted, KEY) == ciphertext_bytes(size) == encrypted.stat().st_size
    assert decrypt_file(encrypted, opened, KEY, size) == size
    assert opened.read_bytes() == plain.read_bytes()


def test_encryption_is_deterministic_and_no_chunk_shows_its_plaintext(sealed, tmp_path):
    plain, encrypted = sealed
    encrypt_file(plain, tmp_path / "again", KEY)
    assert (tmp_path / "again").read_bytes() == encrypted.read_bytes()
    assert plain.read_bytes()[:64] not in encrypted.read_bytes()


def test_two_plaintexts_under_one_key_share_no_key_stream(tmp_path):
    texts = [b"\0" * 100, b"\0" * 99 + b"\1"]
    sealed = []
    for index, text in enumerate(texts):
        (tmp_path / f"p{index}").write_bytes(text)
        encrypt_file(tmp_path / f"p{index}", tmp_path / f"e{index}", KEY)
        sealed.append((tmp_path / f"e{index}").read_bytes()[-116:-16])
    assert sum(left == right for left, right in zip(*sealed, strict=True)) < 20


def test_another_key_does_not_match(sealed):
    assert refusal(sealed[1], OTHER) is RejectionReason.KEY_MISMATCH
    assert refusal(sealed[1], b"short") is RejectionReason.KEY_MISMATCH
    assert key_hash(KEY) != key_hash(OTHER)


def test_a_plaintext_above_the_bound_is_refused_before_it_is_read(sealed):
    assert refusal(sealed[1], maximum=1_000) is RejectionReason.TOO_LARGE


@pytest.mark.parametrize("cut", [0, 10, 87, 1_000, CHUNK_BYTES + 200])
def test_a_truncated_file_is_malformed(sealed, cut):
    sealed[1].write_bytes(sealed[1].read_bytes()[:cut])
    assert refusal(sealed[1]) is RejectionReason.MALFORMED


def test_bytes_behind_the_end_are_malformed(sealed):
    sealed[1].write_bytes(sealed[1].read_bytes() + b"x")
    assert refusal(sealed[1]) is RejectionReason.MALFORMED


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, ciphertext_bytes(1_000) - 1), flip=st.integers(1, 255))
def test_any_altered_byte_is_refused(tmp_path_factory, position, flip):
    directory = tmp_path_factory.mktemp("altered")
    (directory / "plain").write_bytes(b"a" * 1_000)
    encrypt_file(directory / "plain", directory / "encrypted", KEY)
    data = bytearray((directory / "encrypted").read_bytes())
    data[position] ^= flip
    (directory / "encrypted").write_bytes(data)
    assert refusal(directory / "encrypted") in {
        RejectionReason.MALFORMED,
        RejectionReason.TOO_LARGE,
        RejectionReason.KEY_MISMATCH,
        RejectionReason.PLAINTEXT_MISMATCH,
    }


def test_swapped_chunks_are_not_the_plaintext(sealed):
    data, chunk = sealed[1].read_bytes(), CHUNK_BYTES + 16
    head, first, second, rest = (
        data[:88],
        data[88 : 88 + chunk],
        data[88 + chunk : 88 + 2 * chunk],
        data[88 + 2 * chunk :],
    )
    sealed[1].write_bytes(head + second + first + rest)
    assert refusal(sealed[1]) is RejectionReason.PLAINTEXT_MISMATCH
