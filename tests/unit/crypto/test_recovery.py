"""Recovery: enough people together open the ring again, and fewer learn nothing."""

from __future__ import annotations

import itertools
import json

import pytest
import shamir_mnemonic

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.recovery import combine, export
from datavern.crypto.ring import new_secrets


def test_any_two_of_three_open_it_and_nobody_alone():
    secrets = new_secrets()
    made = export(secrets, threshold=2, shares=3)
    for some in itertools.permutations(made.shares, 2):
        assert combine(made.file, some) == secrets
    assert combine(made.file, [" " + made.shares[0].upper() + "\n", made.shares[2], made.shares[1]]) == secrets
    for few in ([], made.shares[:1], [made.shares[0], made.shares[0]]):
        with pytest.raises(ConfigurationError, match="takes 2 different shares"):
            combine(made.file, few)


def test_what_is_handed_out_holds_no_key():
    secrets = new_secrets()
    made = export(secrets, threshold=2, shares=2)
    for key in (secrets.epochs[1], secrets.signing_seed):
        assert key.hex() not in made.file
        assert made.shares[0] not in repr(made)
    assert json.loads(made.file)["ring"] == secrets.ring_id.hex()


@pytest.mark.parametrize(("threshold", "shares"), [(1, 1), (1, 3), (3, 2), (2, 17), (0, 0)])
def test_numbers_that_make_no_sense_are_refused(threshold, shares):
    with pytest.raises(ConfigurationError, match="2 to 16 shares"):
        export(new_secrets(), threshold=threshold, shares=shares)


def test_a_mistyped_share_another_recovery_and_a_changed_file_are_told_without_words():
    made, other = (export(new_secrets(), threshold=2, shares=3) for _ in range(2))
    words = made.shares[0].split()
    words[5], words[6] = words[6], words[5] if words[5] != words[6] else "academic"
    for wrong in ([" ".join(words), made.shares[1]], [made.shares[0], other.shares[1]], ["planted nonsense", "x y"]):
        with pytest.raises(ConfigurationError, match="do not fit together") as caught:
            combine(made.file, wrong)
        assert caught.value.__cause__ is None
        assert words[9] not in str(caught.value)
    with pytest.raises(DecryptionFailed, match="another one's"):
        combine(made.file, other.shares[:2])
    changed = json.loads(made.file) | {"generation": 7}
    with pytest.raises(DecryptionFailed):
        combine(json.dumps(changed), made.shares[:2])
    for nonsense in ("", "[]", "{}", '{"format": "datavern-recovery", "sealed": 5}'):
        with pytest.raises(ConfigurationError, match="no recovery's file"):
            combine(nonsense, made.shares)


def test_the_shares_are_slip_39():
    """A vector of the standard: whoever has the words needs no Datavern to put the key together."""
    words = (
        "duckling enlarge academic academic agency result length solution fridge kidney coal piece deal husband erode "
        "duke ajar critical decision keyboard"
    )
    assert shamir_mnemonic.combine_mnemonics([words], b"TREZOR").hex() == "bb54aac4b89dc868ba37d9cc21b2cece"
    made = export(new_secrets(), threshold=2, shares=2)
    assert all(len(share.split()) == 33 for share in made.shares)


def test_a_file_that_lacks_something_is_told_of():
    made = export(new_secrets(), threshold=2, shares=3)
    for name in json.loads(made.file):
        spoilt = json.loads(made.file)
        del spoilt[name]
        for shares in (made.shares, ()):
            with pytest.raises((ConfigurationError, DecryptionFailed)):
                combine(json.dumps(spoilt), shares)
