"""An agent starts only when its site's stores and its secrets backend answer, and says what does not."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from jetbridge.agent.start_checks import StartCheckError, run_start_checks

AWS = "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
LOCAL = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def secrets_manager():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(tmp_path):
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nonexistent/none",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }


def configured(backend, **options):
    return {
        "AIRFLOW__SECRETS__BACKEND": backend,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(options),
    }


def unused_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def store(s3, **changes):
    return {
        "AIRFLOW__CORE__XCOM_BACKEND": "jetbridge.xcom.backend.ObjectStoreXComBackend",
        "AIRFLOW__WORKERS__STATE_STORE_BACKEND": "jetbridge.xcom.state_store.ObjectStoreStateBackend",
        "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": s3.endpoint_url,
        "JETBRIDGE_OBJECT_STORE_ACCESS_KEY": s3.access_key,
        "JETBRIDGE_OBJECT_STORE_SECRET_KEY": s3.secret_key,
        "JETBRIDGE_OBJECT_STORE_REGION": s3.region,
        "JETBRIDGE_OBJECT_STORE_XCOM_BUCKET": "start-checks",
        "JETBRIDGE_OBJECT_STORE_RETRIES": "0",
        **changes,
    }


def test_nothing_configured_is_nothing_to_check(environment):
    run_start_checks(environment)


def test_a_store_that_answers(environment, s3):
    run_start_checks(environment | store(s3))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"JETBRIDGE_OBJECT_STORE_SECRET_KEY": "not-the-key-of-it"}, "does not accept the credentials"),
    ],
)
def test_a_store_that_does_not(environment, s3, changes, word):
    with pytest.raises(StartCheckError, match=word) as error:
        run_start_checks(environment | store(s3, **changes))
    assert "the XCom store and the state store" in str(error.value)
    assert "not-the-key-of-it" not in str(error.value)


def test_local_files(environment, tmp_path):
    variables, connections = tmp_path / "variables.json", tmp_path / "connections.json"
    variables.write_text('{"a": "b"}')
    connections.write_text('{"c": "http://user:secret@host"}')
    there = configured(LOCAL, variables_file_path=str(variables), connections_file_path=str(connections))
    run_start_checks(environment | there)
    variables.unlink()
    with pytest.raises(StartCheckError, match="LocalFilesystemBackend does not answer"):
        run_start_checks(environment | there)


def test_a_backend_that_cannot_even_be_made(environment):
    with pytest.raises(StartCheckError, match="secrets backend"):
        run_start_checks(environment | configured("nowhere.NoBackend"))


def test_aws_secrets_manager(environment, secrets_manager):
    there = configured(
        AWS, connections_prefix="airflow/connections", variables_prefix="airflow/variables"
    ) | {"AWS_ENDPOINT_URL": secrets_manager, **KEYS}
    run_start_checks(environment | there)


def test_aws_secrets_manager_that_does_not_answer(environment):
    away = configured(AWS, connections_prefix="airflow/connections", variables_prefix="airflow/variables") | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused_port()}",
        "AWS_MAX_ATTEMPTS": "1",
        **KEYS,
    }
    with pytest.raises(
        StartCheckError, match="SecretsManagerBackend does not answer: EndpointConnection"
    ) as error:
        run_start_checks(environment | away)
    assert "testing-secret" not in str(error.value)


@pytest.fixture
def least_privilege():
    """Secrets Manager for credentials that may read one variable: moto takes no policies."""

    class Answers(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["SecretId"]
            allowed = asked == "airflow/variables/theirs"
            body = {"SecretString": "x"} if allowed else {"__type": "AccessDeniedException", "Message": KEYS}
            text = json.dumps(body).encode()
            self.send_response(200 if allowed else 400)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield configured(
            AWS, connections_prefix="airflow/connections", variables_prefix="airflow/variables"
        ) | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            **KEYS,
        }
        server.shutdown()
        serving.join()


def test_aws_secrets_manager_that_denies_access(environment, least_privilege):
    with pytest.raises(
        StartCheckError, match=r"denies access: ClientError \(AccessDeniedException\)"
    ) as error:
        run_start_checks(environment | least_privilege)
    assert "JETBRIDGE_SECRETS_PROBE" in str(error.value)
    assert "testing-secret" not in str(error.value)


def test_whoever_may_read_only_some_secrets_names_one(environment, least_privilege):
    run_start_checks(environment | least_privilege | {"JETBRIDGE_SECRETS_PROBE": "theirs"})
    with pytest.raises(StartCheckError, match="denies access"):
        run_start_checks(environment | least_privilege | {"JETBRIDGE_SECRETS_PROBE": "of-others"})


def test_a_secret_that_is_named_has_to_be_there(environment, secrets_manager):
    """Also where the backend's own patterns keep it from being asked for anything else."""
    there = configured(AWS, variables_lookup_pattern="^theirs", connections_lookup_pattern="^theirs") | {
        "AWS_ENDPOINT_URL": secrets_manager,
        "JETBRIDGE_SECRETS_PROBE": "theirs-and-missing",
        **KEYS,
    }
    with pytest.raises(StartCheckError, match="neither a connection nor a variable"):
        run_start_checks(environment | there)


def test_a_task_finds_its_secrets_in_aws(environment, secrets_manager, monkeypatch):
    """The chain that a task's process asks: the site's own backend first."""
    client = boto3.client(
        "secretsmanager",
        endpoint_url=secrets_manager,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing-secret",
    )
    client.create_secret(Name="airflow/variables/where", SecretString="at the site")
    client.create_secret(
        Name="airflow/connections/db", SecretString=json.dumps({"conn_type": "http", "password": "p w"})
    )
    there = configured(
        AWS, connections_prefix="airflow/connections", variables_prefix="airflow/variables"
    ) | {"AWS_ENDPOINT_URL": secrets_manager, **KEYS}
    program = (
        "from airflow.sdk import BaseHook, Variable\n"
        "print('found', Variable.get('where'), BaseHook.get_connection('db').password)\n"
    )
    monkeypatch.chdir(environment["HOME"])
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | there,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "found at the site p w" in ended.stdout, ended.stderr[-2000:]
