"""What is said of an outage, and how often."""

from nemo_airflow.jobs.outage import Outage

LOST = "the connection to host:22 was lost"
REFUSED = "host:22 refused the login"


def test_outage_is_said_at_once_hourly_and_when_it_is_over():
    outage = Outage()
    said = [outage.begin(now, LOST) for now in range(0, 7300, 10)]
    assert [bool(text) for text in said].count(True) == 3
    assert said[0].endswith(f"trying again; the job goes on: {LOST}")
    assert "could not be followed for 1 h 0 min" in said[360]
    assert outage.end(7300) == "the back-end tells again how the job fares, after 2 h 1 min"
    assert outage.end(7301) == ""


def test_new_reason_of_an_outage_is_said_once():
    outage = Outage()
    said = [outage.begin(now, reason) for now, reason in enumerate([LOST, REFUSED, LOST, REFUSED])]
    assert said[1] == f"the job still cannot be followed: {REFUSED}"
    assert said[2:] == ["", ""]
    outage.end(10)
    assert outage.begin(11, REFUSED).endswith(REFUSED)


def test_reasons_that_differ_by_a_number_are_one_and_many_reasons_are_no_flood():
    outage = Outage()
    assert not any([outage.begin(now, f"no answer of connection {now} for {now}.5 s") for now in range(100)][1:])
    said = [outage.begin(200, "trouble " + "x" * number) for number in range(50)]
    assert sum(map(bool, said)) == 2
