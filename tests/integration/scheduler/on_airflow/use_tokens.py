"""What Airflow's api-server answers about agent tokens to people of several roles."""

UNKNOWN = "0" * 12
PASTED = "jb_000000000000_" + "s" * 43


def answers(client, login):
    """Return status, body and caching of each answer; ``login`` makes the header of somebody of a role."""
    op = login("OP")

    def ask(method, path, headers=op, **arguments):
        answer = client.request(method, f"/jetbridge/tokens{path}", headers=headers, **arguments)
        return {
            "status": answer.status_code,
            "body": answer.json(),
            "cache": answer.headers.get("cache-control"),
        }

    wanted = {"name": "from the UI", "scopes": {"roles": ["worker"], "queues": ["gpu"]}}
    created = ask("POST", "", json=wanted)
    token_id = created["body"]["token"]["id"]
    answers = {
        "created": created,
        "listed": ask("GET", ""),
        "rotated": ask("POST", f"/{token_id}/rotate", json={"overlap_seconds": 60}),
        "revoked": ask("DELETE", f"/{token_id}"),
        "revoked again": ask("DELETE", f"/{token_id}"),
        "rotated when revoked": ask("POST", f"/{token_id}/rotate", json={}),
        "unknown": ask("DELETE", f"/{UNKNOWN}"),
        "pasted": ask("DELETE", f"/{PASTED}"),
        "no json": ask("POST", "", content=b"name=x", headers=op | {"Content-Type": "text/plain"}),
        "unknown field": ask("POST", "", json=wanted | {"admin": True}),
        "bad network": ask("POST", "", json=wanted | {"scopes": {"cidrs": ["10.1.2.3/8"]}}),
        "bad name": ask("POST", "", json={"name": "a\nb"}),
        "too large": ask(
            "POST", "", content=b" " * (300 << 10), headers=op | {"Content-Type": "application/json"}
        ),
        "nobody": ask("GET", "", headers={}),
    }
    for role in ("VIEWER", "USER"):
        of_role = login(role)
        answers |= {
            f"{role} lists": ask("GET", "", headers=of_role),
            f"{role} creates": ask("POST", "", headers=of_role, json=wanted),
            f"{role} rotates": ask("POST", f"/{token_id}/rotate", headers=of_role, json={}),
            f"{role} revokes": ask("DELETE", f"/{token_id}", headers=of_role),
        }
    return answers
