"""What differs between the records of two runs, as notices tell it."""

from nemo_airflow.comparison.records import changes


def record(config, digest, commit="c"):
    package = {"commit": commit, "digest": "p"}
    return {"config": config, "plan_digest": digest, "package": package, "handle": {"kind": "local", "cluster": "vm"}}


def test_a_difference_beyond_what_the_record_lists_is_no_nothing():
    found = changes(record({"a": "1"}, "d1"), record({"a": "1"}, "d2"))
    assert [(change.name, change.old, change.new) for change in found] == [("config", "d1", "d2")]
    assert changes(record({"a": "1"}, "d1"), record({"a": "1"}, "d1")) == []


def test_a_parameter_may_be_named_as_a_fact_of_the_job():
    found = changes(record({"commit": "x"}, "d", "c1"), record({"commit": "x"}, "d", "c2"))
    assert [(change.name, change.old, change.new) for change in found] == [("commit", "c1", "c2")]
