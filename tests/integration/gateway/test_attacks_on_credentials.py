"""Forged, swapped, replayed and misplaced credentials: one line each, and none is let in."""

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jetbridge.bus.keys import shared_key
from jetbridge.contracts.ids import AgentToken

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
async def own(agent, store, workload):
    """A registered agent with a lease: what it holds is the raw material."""
    await store.submit(workload())
    lease, token = await agent.lease()
    return {"agent": agent, "lease": lease, "lease_token": token, "credential": agent.credential}


@pytest.fixture
async def key(bus):
    return await shared_key(bus, "credentials")


def part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def unsigned(token, **header):
    return f"{part({'alg': 'none', 'typ': 'JWT', **header})}.{token.split('.')[1]}."


def with_claims(token, key, **changes):
    claims = {name: value for name, value in (claims_of(token) | changes).items() if value is not None}
    return jwt.encode(claims, key, "HS256")


FORGERIES = {
    "no algorithm": lambda t, _: unsigned(t),
    "no algorithm, other case": lambda t, _: unsigned(t, alg="nOnE"),
    "no algorithm, kept signature": lambda t, _: unsigned(t) + t.split(".")[2],
    "signature left out": lambda t, _: t.rpartition(".")[0] + ".",
    "signature of two parts": lambda t, _: t.rpartition(".")[0],
    "signature of another token": lambda t, _: (
        t.rpartition(".")[0] + "." + jwt.encode({}, "x" * 64).split(".")[2]
    ),
    "another key": lambda t, _: jwt.encode(claims_of(t), "y" * 64, "HS256"),
    "empty key": lambda t, _: jwt.encode(claims_of(t), "\0" * 64, "HS256"),
    "another HMAC with the right key": lambda t, k: jwt.encode(claims_of(t), k, "HS512"),
    "an RSA signature": lambda t, _: jwt.encode(claims_of(t), RSA, "RS256"),
    "HMAC with a public key": lambda t, _: jwt.encode(claims_of(t), PUBLIC_PEM.hex(), "HS256"),
    "key named in the header": lambda t, _: jwt.encode(
        claims_of(t), "z" * 64, headers={"kid": "../../dev/null"}
    ),
    "key by address in the header": lambda t, _: jwt.encode(
        claims_of(t), RSA, "RS256", {"jku": "https://x/k"}
    ),
    "key in the header": lambda t, _: jwt.encode(
        claims_of(t), "z" * 64, headers={"jwk": {"kty": "oct", "k": "eg"}}
    ),
    "critical header": lambda t, k: jwt.encode(claims_of(t), k, headers={"crit": ["b64"], "b64": False}),
    "encrypted form": lambda t, _: f"{t}.{t.split('.')[1]}.{t.split('.')[2]}",
    "other audience": lambda t, k: with_claims(t, k, aud="urn:airflow.apache.org:task"),
    "no audience": lambda t, k: with_claims(t, k, aud=None),
    "all audiences": lambda t, k: with_claims(t, k, aud=["x", "jetbridge"]),
    "no subject": lambda t, k: with_claims(t, k, sub=None),
    "expired": lambda t, k: with_claims(t, k, exp=time.time() - 1),
    "not yet valid": lambda t, k: with_claims(t, k, nbf=time.time() + 3600),
    "too long": lambda t, k: with_claims(t, k, more="x" * 2000),
    "deep header": lambda t, _: part(json.loads("[" * 500 + "]" * 500)) + "." + t.partition(".")[2],
    "not text": lambda t, _: "\xff\xfe" + t,
    "two spaces before": lambda t, _: " " + t,
    "two tokens": lambda t, _: f"{t} {t}",
    "another scheme inside": lambda t, _: f"Basic {t}",
}


def in_bytes(token):
    return [(b"authorization", b"Bearer " + token.encode("latin-1")), (b"content-type", b"application/json")]


async def test_a_forged_credential(own, key, problem):
    agent = own["agent"]
    for name, forge in FORGERIES.items():
        headers = in_bytes(forge(own["credential"], key))
        answer = await agent.client.post(
            f"/v1/agents/{agent.name}/heartbeat", json={"free_slots": 0}, headers=headers
        )
        assert answer.status_code == 401, name
        problem(answer, "unauthenticated")
    assert (await agent.heartbeat()).status_code == 200


async def test_a_forged_token_of_a_lease(own, key, problem, airflow):
    for name, forge in FORGERIES.items():
        headers = in_bytes(forge(own["lease_token"], key))
        answer = await own["agent"].client.get("/execution/xcoms/d/r/t/k", headers=headers)
        assert answer.status_code == 401, name
        problem(answer, "unauthenticated")
    assert not airflow.seen


async def test_each_kind_opens_its_own_door_only(own, problem, jwt_secret_file, auth):
    agent, client = own["agent"], own["agent"].client
    airflows = jwt.encode(
        {
            "sub": own["lease"].partition(".")[0],
            "aud": "urn:airflow.apache.org:task",
            "exp": time.time() + 60,
        },
        jwt_secret_file.read_text().strip(),
        "HS512",
    )
    kinds = {
        "agent token": agent.token,
        "credential": own["credential"],
        "lease": own["lease_token"],
        "airflow": airflows,
    }
    doors = {
        "agent token": lambda h: client.post("/v1/agents", json={}, headers=h),
        "credential": lambda h: client.post(
            f"/v1/agents/{agent.name}/heartbeat", json={"free_slots": 0}, headers=h
        ),
        "lease": lambda h: client.get("/execution/xcoms/d/r/t/k", headers=h),
    }
    for kind, token in kinds.items():
        for door, knock in doors.items():
            answer = await knock(auth(token))
            if door == kind:
                assert answer.status_code in (200, 400), (kind, door)
            else:
                problem(answer, "unauthenticated")


IN_URLS = [
    "/v1/agents?token={token}",
    "/v1/agents/{name}/heartbeat?access_token={credential}",
    "/v1/agents/{name}/poll?{credential}",
    "/execution/xcoms/d/r/t/k?token={lease}",
    "/execution/xcoms/d/r/t/k?x={token}",
    "/execution/xcoms/d/r/t/{lease}",
    "/execution/xcoms/d/r/t/{token}",
    "/execution/xcoms/d/r/t/k?map_index=-1&authorization=Bearer%20{lease}",
]


@pytest.mark.parametrize("signed_in", [True, False])
async def test_a_token_in_a_url_is_refused_and_not_repeated(own, problem, airflow, capfd, signed_in):
    agent = own["agent"]
    held = {"token": agent.token, "credential": own["credential"], "lease": own["lease_token"]}
    for path in IN_URLS:
        execution = path.startswith("/execution")
        kind = "lease" if execution else "token" if path.startswith("/v1/agents?") else "credential"
        answer = await agent.client.request(
            "GET" if execution else "POST",
            path.format(name=agent.name, **held),
            json=None if execution else {"free_slots": 0},
            headers={"Authorization": f"Bearer {held[kind]}"} if signed_in else {},
        )
        problem(answer, "malformed" if signed_in else "unauthenticated")
        said = answer.text + "".join(capfd.readouterr())
        for secret in (AgentToken.parse(agent.token).secret, held["lease"][-43:], held["credential"][-43:]):
            assert secret not in said, path
    assert not airflow.seen


async def test_which_tokens_exist_cannot_be_told(make_agent, problem, auth):
    """The same answer for every kind of wrong, headers included."""
    agent = await make_agent()
    known = AgentToken.parse(agent.token).id
    guesses = [
        AgentToken(known, AgentToken.generate().secret),
        AgentToken.generate(),
        "jb_",
        "Bearer",
        "x" * 500,
    ]
    answers = [await agent.client.post("/v1/agents", json={}, headers=auth(str(one))) for one in guesses]
    for answer in answers:
        problem(answer, "unauthenticated")
    told = {(a.json()["detail"], tuple(sorted(set(a.headers) - {"date"}))) for a in answers}
    assert len(told) == 1
