"""Our tokens against Airflow's own: the same claims, headers and key ids, and its validator takes them."""

import json
import subprocess
import sys

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from jetbridge.gateway.airflow_tokens import AirflowTokens
from jetbridge.gateway.settings import GatewaySettings

TI = "0198a0e0-0000-7000-8000-000000000001"

# In a process of its own: importing Airflow takes seconds and warns about much.
ASK_AIRFLOW = """
import json, sys
from airflow.api_fastapi.auth.tokens import JWKS, JWTGenerator, JWTValidator
from airflow.configuration import conf

asked = json.load(sys.stdin)
answers = []
for case in asked["cases"]:
    pem = case["pem"]
    key = {"private_key": pem} if pem else {"secret_key": case["secret"]}
    generator = JWTGenerator(
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
        valid_for=conf.getint("execution_api", "jwt_expiration_time"),
        **key,
    )
    proof = {"jwks": JWKS.from_private_key(generator._private_key)} if pem else key
    validator = JWTValidator(audience=conf.get_mandatory_list_value("execution_api", "jwt_audience"), **proof)
    answers.append({
        "theirs": generator.generate({"sub": asked["sub"], "scope": "execution"}),
        "ours": validator.validated_claims(case["token"]),
    })
print("ANSWER" + json.dumps(answers))
"""


def pem(key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Return for each kind of key our token and what Airflow makes and says."""
    directory = tmp_path_factory.mktemp("keys")
    keys = {
        "secret": ("x" * 64, ""),
        "short secret": ("too-short", ""),
        "rsa": ("", pem(rsa.generate_private_key(65537, 2048))),
        "ed25519": ("", pem(ed25519.Ed25519PrivateKey.generate())),
    }
    asked = []
    for number, (secret, key) in enumerate(keys.values()):
        file = directory / str(number)
        file.write_text(secret or key)
        which = "airflow_jwt_private_key_file" if key else "airflow_jwt_secret_file"
        settings = GatewaySettings(tls_cert_file="c", tls_key_file="k", **{which: file})
        asked.append({"secret": secret, "pem": key, "token": AirflowTokens(settings).token_for(TI)})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK_AIRFLOW],
        input=json.dumps({"sub": TI, "cases": asked}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "ANSWER" in done.stdout, done.stderr
    answers = json.loads(done.stdout.partition("ANSWER")[2].splitlines()[0])
    return {name: (case["token"], answer) for name, case, answer in zip(keys, asked, answers, strict=True)}


@pytest.mark.parametrize("kind", ["secret", "short secret", "rsa", "ed25519"])
def test_airflow_takes_our_token_and_makes_the_same(cases, kind):
    ours, answer = cases[kind]
    assert answer["ours"]["sub"] == TI
    assert answer["ours"]["scope"] == "execution"
    assert jwt.get_unverified_header(ours) == jwt.get_unverified_header(answer["theirs"])
    mine, theirs = (
        jwt.decode(token, options={"verify_signature": False}) for token in (ours, answer["theirs"])
    )
    assert set(mine) == set(theirs)
    assert mine["aud"] == theirs["aud"]
    assert mine["exp"] - mine["iat"] == theirs["exp"] - theirs["iat"]


def test_a_token_is_kept_until_half_its_life_is_over(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    tokens = AirflowTokens(
        GatewaySettings(tls_cert_file="c", tls_key_file="k", airflow_jwt_secret_file=secret)
    )
    now = 1_000_000.0
    monkeypatch.setattr("jetbridge.gateway.airflow_tokens.time.time", lambda: now)
    first = tokens.token_for(TI)
    now += 299
    assert tokens.token_for(TI) == first
    now += 2
    assert tokens.token_for(TI) != first
