"""
Print what Airflow's REST API, with ours in it, answers, as JSON by subject.

All of it is asked in one process: building the application takes ten seconds.
"""

import json
import sys
from pathlib import Path

import show_log_tab
import use_tokens
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from starlette.testclient import TestClient


def login(role):
    user = SimpleAuthManagerUser(username=role.lower(), role=role, teams=[])
    return {"Authorization": f"Bearer {get_auth_manager().generate_jwt(user)}"}


with TestClient(create_app(apps="core")) as client:
    answers = {
        "logs": show_log_tab.answers(client, login("VIEWER")),
        "tokens": use_tokens.answers(client, login),
    }
Path(sys.argv[1]).write_text(json.dumps(answers))
