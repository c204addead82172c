"""The object store that the tests of the store share."""

import json
import os

import boto3
import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="session")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    extra = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "key", "password": "hidden-secret", "extra": extra}
    os.environ["AIRFLOW_CONN_STORE_S3"] = json.dumps(connection)
    login = {"aws_access_key_id": "key", "aws_secret_access_key": "hidden-secret"}
    boto3.client("s3", **extra, **login).create_bucket(Bucket="bucket")
    yield "s3://store_s3@bucket"
    server.stop()
