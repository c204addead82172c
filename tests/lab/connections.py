"""Airflow connections to the lab, in the form in which the environment holds them."""

import json


def ssh_connection(ssh, **extra):
    """Returns an Airflow connection, as JSON, for a login of the lab; further extra fields win, None takes one away."""
    extra = {"key_file": str(ssh.key_file), "host_key": ssh.host_key, **extra}
    extra = {name: value for name, value in extra.items() if value is not None}
    return json.dumps(
        {"conn_type": "ssh", "host": ssh.host, "port": ssh.port, "login": ssh.user, "extra": json.dumps(extra)}
    )
