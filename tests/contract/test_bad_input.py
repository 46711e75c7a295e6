"""Bad input on its way to personal data: each gets its own clear error, and no planted value is anywhere.

Not in a message, a cause or a context, an attribute, a pickle or a traceback; and not in the log, with everything at
DEBUG and asyncio's own debugging on.
"""

import asyncio
import json
import pickle
import traceback
from pathlib import Path

import pytest

from datavern import (
    ConfigurationError,
    ConsentRequired,
    ConstraintViolated,
    DatavernError,
    Field,
    KeyUnavailable,
    QueryRejected,
    SubjectRequest,
    SubjectRequestRejected,
)
from datavern.crypto.key_files import write_document
from datavern.crypto.lookup_keys import life_ids

NAME, MAIL, NUMBER, PLACE = "planted-Åse-Ås", "planted@example.no", "13097248022", "planted-place"
WRONG, SHORT = "13097248032", "1023712345"
PLANTED = (NAME, MAIL, NUMBER, PLACE, WRONG, SHORT)
PURPOSE = "customer-account"


def forms(value):
    """How a value may stand in a text."""
    return {value, repr(value)[1:-1], ascii(value)[1:-1], json.dumps(value)[1:-1], value.encode().hex()}


def told(error):
    """All that may ever be shown of an error, and of what it hangs together with."""
    seen, waiting, texts = set(), [error], []
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        texts += [str(one), repr(one), repr(one.args), repr(vars(one)), *getattr(one, "__notes__", [])]
        texts += [repr(pickle.dumps(one)), "".join(traceback.format_exception(one))]
        waiting += [one.__cause__, one.__context__]
    return "\n".join(texts)


def nothing_planted(text, where):
    for value in PLANTED:
        for form in forms(value):
            assert form not in text, where


@pytest.fixture
async def log(logged):
    """Everything that is logged while a test runs; what is planted is not in it."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0  # each callback is told of
    yield
    loop.set_debug(False)
    assert "Executing <" in logged.getvalue()
    nothing_planted(logged.getvalue(), "the log")


@pytest.fixture
async def db(managed, log):
    from conftest import users

    fields = {
        "personal_number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer"),
        "name": Field(sealed=True),
        "email": Field(sealed=True, lookup=True, kind="email"),
        "place": Field(unique=True),
        "age": Field(type="integer"),
    }
    async with managed(users(fields=fields)) as db:
        await db.prepare("users")
        consent = await db.consents.grant(subject="a", purpose=PURPOSE)
        row = {"id": "a", "name": NAME, "email": MAIL, "personal_number": NUMBER, "place": PLACE}
        await db.personal("users").insert(row, consent=consent)
        yield db


def rows():
    """What is wrong with a row, the error, and what it says."""
    return {
        "a duplicate of a sealed unique value": ({"personal_number": NUMBER}, ConstraintViolated, "_number_lookup"),
        "a duplicate of a unique value": ({"place": PLACE}, ConstraintViolated, "place"),
        "a number out of range": ({"age": 2**80}, QueryRejected, "out of range|not a value that fits int8"),
        "a text where a number is": ({"age": PLACE}, QueryRejected, "type constraint|not a value that fits int8"),
        "a NUL in text": ({"place": PLACE + "\0"}, QueryRejected, "NUL character"),
        "half a surrogate pair": ({"place": PLACE + "\ud800"}, QueryRejected, "surrogate|not a value that fits text"),
        "half a surrogate pair, sealed": ({"name": NAME + "\ud800"}, ConfigurationError, r"users\.name: .*surrogate"),
        "the same, looked up": ({"email": MAIL + "\ud800"}, ConfigurationError, r"users\.email: .*surrogate"),
        "a type that cannot be sealed": ({"name": {NAME}}, ConfigurationError, r"users\.name: .*set cannot be sealed"),
        "a type that the engine does not know": ({"place": {PLACE}}, QueryRejected, "set|not a value that fits text"),
        "a number that is no text": ({"personal_number": int(NUMBER)}, ConfigurationError, "as text .str., not as int"),
        "nothing of a number": ({"personal_number": "planted-place"}, ConfigurationError, "11 digits, and there are 0"),
        "a number without its zero": ({"personal_number": SHORT}, ConfigurationError, "lose its first zero"),
        "a number with a wrong digit": ({"personal_number": WRONG}, ConfigurationError, "so a digit is wrong. Ask"),
        "a fødselsnummer as the subject": ({"id": NUMBER}, ConfigurationError, "fødselsnummer cannot be a subject id"),
        "no subject": ({"id": None, "name": NAME}, ConfigurationError, r"users\.id: missing"),
        "a column of Datavern's own": ({"email_lookup": MAIL}, ConfigurationError, "Datavern's own"),
        "a column that is not there": ({"plaace": PLACE}, ConfigurationError, "has no field plaace"),
        "a sealed column in other letters": ({"Name": NAME}, ConfigurationError, "has no field Name"),
    }  # fmt: skip


@pytest.mark.parametrize("how", ["insert", "insert_many", "transaction"])
@pytest.mark.parametrize("what", rows())
async def test_a_row_that_cannot_be(db, what, how):
    changes, kind, says = rows()[what]
    users = db.personal("users")
    consent = await db.consents.grant(subject="b", purpose=PURPOSE)
    row = {"id": "b", "name": NAME, **changes}
    with pytest.raises(kind, match=says) as refused:
        if how == "insert":
            await users.insert(row, consent=consent)
        elif how == "insert_many":
            await users.insert_many([row], consent=[consent])
        else:
            async with db["main"].transaction() as tx:
                await users.insert(row, consent=consent, transaction=tx)
    nothing_planted(told(refused.value), what)
    assert await users.get("b") is None
    assert (await users.get("a"))["name"] == NAME


async def test_calls_that_cannot_be(db):
    users, main = db.personal("users"), db["main"]
    consent = await db.consents.grant(subject="a", purpose=PURPOSE)
    rectify = {"users": {"place": PLACE + "\0"}}
    unkept = {"users": {"place": {PLACE}}}  # no type that the journal can keep until it is done
    calls = [
        (lambda: users.update("a", {"age": PLACE}, consent=consent), QueryRejected),
        (lambda: users.update("a", {"place": PLACE + "\0"}, consent=consent), QueryRejected),
        (lambda: users.update("a", {"name": {NAME}}, consent=consent), ConfigurationError),
        (lambda: users.update("a", {"NAME": NAME.encode()}, consent=consent), ConfigurationError),
        (lambda: users.find(name=NAME), ConfigurationError),
        (lambda: users.find(email=7), ConfigurationError),
        (lambda: users.get({PLACE: NAME}), ConfigurationError),
        (lambda: users.insert({"id": "b", "name": NAME}, consent=PLACE), ConsentRequired),
        (lambda: main.store_personal_data({"user_id": "a", "x": {PLACE}}, consent), ConfigurationError),
        (lambda: main.store_personal_data({"user_id": NUMBER, "x": PLACE}, consent), ConfigurationError),
        (lambda: db.consents.grant(subject=NUMBER, purpose=PURPOSE), ConfigurationError),
        (lambda: db.consents.list(NUMBER), ConfigurationError),
        (lambda: db.audit.record("x", subject=NUMBER), ConfigurationError),
        (lambda: db.audit.record("x", details={"of": NUMBER}), ConfigurationError),
        (lambda: db.audit.record("x", details={"of": {PLACE}}), ConfigurationError),
        (lambda: _process(db, "access", NUMBER), ConfigurationError),
        (lambda: _process(db, "erasure", NUMBER), ConfigurationError),
        (lambda: _process(db, "rectification", "a", changes=unkept), ConfigurationError),
        (lambda: _process(db, "rectification", "a", changes=rectify), SubjectRequestRejected),
        (lambda: _process(db, "rectification", "nobody", changes=rectify), SubjectRequestRejected),
    ]  # fmt: skip
    for number, (call, kind) in enumerate(calls):
        with pytest.raises(kind) as refused:
            await call()
        nothing_planted(told(refused.value), number)
    async for _ in users.of("a"):
        pass
    with pytest.raises(ConfigurationError) as refused:
        [row async for row in users.of(NUMBER)]
    nothing_planted(told(refused.value), "of")
    assert (await users.get("a"))["place"] == PLACE


async def _process(db, kind, subject, **more):
    return await db.subject_requests.process(SubjectRequest(kind, subject=subject, **more))


async def test_nothing_that_is_printed_shows_a_value_or_a_key(db):
    consent = await db.consents.grant(subject="a", purpose=PURPOSE)
    await db.personal("users").get("a")
    key = await db.keys.subject_key("users", "a")
    for thing in (db, db["main"], db["main"].settings, db.services, db.keys, db.keys._known, db.keys._keyring, db.audit,
                  db.consents, consent, db.subject_requests, db.personal("users"), db.data_map, key,
                  await db.audit.entry("x", subject="a")):  # fmt: skip
        nothing_planted(f"{thing!r} {thing}", type(thing))
    for secret in (key, db.keys._keyring.signer):
        with pytest.raises(TypeError):
            pickle.dumps(secret)


@pytest.mark.parametrize("what", ["missing", "a file is missing", "readable by others", "of a later version"])
async def test_keys_that_cannot_be_used(managed, database, keyring, what, log):
    folder = Path(keyring.removeprefix("file:"))
    file = folder / "epoch-1.json"
    url, says = keyring, "datavern init"
    if what == "missing":
        url = f"{keyring}-none"
    elif what == "a file is missing":
        file.unlink()
        says = "restore"
    elif what == "readable by others":
        file.chmod(0o644)
        says = f"chmod 600 {file}"
    else:
        write_document(file, {k: v for k, v in json.loads(file.read_text()).items() if k != "check"} | {"version": 2})
        says = "install a later Datavern"
    provider = database.provider(location="norway")
    db = managed(databases={"main": provider}, keyring=url)
    with pytest.raises(ConfigurationError) as refused:
        await db.open()
    assert says in str(refused.value)
    assert isinstance(refused.value, DatavernError)
    assert (await provider.health()).status == "unhealthy"  # closed again


async def test_lookup_keys_that_were_ended_without_newer_ones_are_told_of(db, sql):
    """By a key store that was set back, or somebody's hand: a write asked for ever whether a rotation had gone on."""
    users, main = db.personal("users"), db["main"]
    consent = await db.consents.grant(subject="a", purpose=PURPOSE)
    for row in await main.query("SELECT key_id FROM datavern_lookup_keys"):
        for life in life_ids(bytes(row["key_id"])):
            await main.execute(sql("UPDATE datavern_key_life SET dead = 1 WHERE key_id = $1"), [life])
    for write in (
        users.update("a", {"name": NAME}, consent=consent),
        users.update("a", {"email": MAIL}, consent=consent),
    ):
        with pytest.raises(KeyUnavailable, match="has no newer ones"):
            await asyncio.wait_for(write, 30)
    assert (await users.get("a"))["name"] == NAME
