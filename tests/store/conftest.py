"""The object stores that the tests of the store share."""

import json
import os

import boto3
import pytest
from lab.azurite import azurite
from lab.ceph import ceph
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


@pytest.fixture(scope="session")
def ceph_bucket(tmp_path_factory):
    with ceph(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture(scope="session")
def azure(tmp_path_factory):
    from azure.storage.blob import BlobServiceClient

    with azurite(tmp_path_factory.mktemp("azurite")) as connection_string:
        BlobServiceClient.from_connection_string(connection_string).create_container("container")
        extra = {"connection_string": connection_string}
        os.environ["AIRFLOW_CONN_STORE_AZURE"] = json.dumps({"conn_type": "wasb", "extra": extra})
        yield "abfs://store_azure@container"
